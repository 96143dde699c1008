"""The files of a table or figure: one for each format."""

from obert.report.built import BuiltTable
from obert.report.html import table_page
from obert.report.latex import to_latex
from obert.report.text import to_csv, to_markdown
from obert.tables._figures import save


def table_files(built: BuiltTable) -> dict[str, bytes]:
    """Contents by file name: CSV, Markdown, HTML and LaTeX, and PNG and SVG of a figure."""
    texts = {"csv": to_csv(built.content), "md": to_markdown(built), "html": table_page(built), "tex": to_latex(built)}
    files = {suffix: text.encode() for suffix, text in texts.items()}
    if built.figure is not None:
        files |= {"png": save(built.figure, "png"), "svg": built.svg}
    return {f"{built.name}.{suffix}": content for suffix, content in files.items()}
