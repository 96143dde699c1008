"""Tables as CSV and Markdown."""

import pandas as pd
from tabulate import tabulate

from obert.report.built import BuiltTable, column_label


def to_csv(content: pd.DataFrame) -> str:
    """The content as CSV: one header line, groups and columns joined by a colon, an empty cell for NaN."""
    flat = content.copy()
    flat.columns = [column_label(column, ": ") for column in content.columns]
    return flat.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def to_markdown(built: BuiltTable) -> str:
    """Title, table or image, caption and notes. Columns of dashes alone are left out."""
    shown = built.shown[built.columns]
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in shown.itertuples(index=False)]
    headers = [column_label(column, " ").replace("|", "\\|") for column in shown.columns]
    alignment = ["left" if built.is_text(column) else "right" for column in shown.columns] if rows else None
    table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    body = table if built.figure is None else f"![{built.title}]({built.name}.svg)"
    parts = [f"# {built.title}", body, built.caption]
    for note in (*built.warnings, *built.notes):
        parts.append(note.text)
        if note.lines:
            parts.append("\n".join(["```", *note.lines, "```"]))
    return "\n\n".join(parts) + "\n"
