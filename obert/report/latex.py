"""Tables and figures as LaTeX floats; they need the packages booktabs and graphicx."""

import pandas as pd

from obert.report.built import BuiltTable
from obert.statistics.formatting import DASH

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",  # noqa: RUF001
    "λ": r"$\lambda$",
    DASH: "--",
}
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def to_latex(built: BuiltTable) -> str:
    """A table or figure with caption, warnings and notes. The lines of a note, which are commands, become comments."""
    kind = "table" if built.figure is None else "figure"
    body = (
        _tabular(built.shown) if built.figure is None else f"\\includegraphics[width=\\linewidth]{{{built.name}.png}}"
    )
    parts = ["% \\usepackage{booktabs,graphicx}", f"\\begin{{{kind}}}", "\\centering", body]
    parts += [f"\\caption{{{escape(built.title)}. {escape(built.caption)}}}", f"\\label{{{kind}:{built.name}}}"]
    for note in (*built.warnings, *built.notes):
        parts += [f"\\par\\footnotesize {escape(note.text)}", *(f"% {line}" for line in note.lines)]
    return "\n".join([*parts, f"\\end{{{kind}}}"]) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _tabular(shown: pd.DataFrame) -> str:
    columns = [shown.iloc[:, place] for place in range(shown.shape[1])]
    alignment = "".join("r" if all(map(_is_number, column)) else "l" for column in columns)
    cells = shown.map(lambda cell: escape(str(cell)))
    if isinstance(shown.columns, pd.MultiIndex):
        cells.columns = pd.MultiIndex.from_tuples([tuple(map(escape, column)) for column in shown.columns])
    else:
        cells.columns = [escape(str(column)) for column in shown.columns]
    table = cells.to_latex(index=False, escape=False, column_format=alignment, multicolumn_format="c")
    return f"{FITTED}\n{table}}}"


def _is_number(cell: object) -> bool:
    text = str(cell)
    return text == DASH or text[:1].isdigit() or text[:1] in ("+", "-")
