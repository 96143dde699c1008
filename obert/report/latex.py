"""Tables and figures as LaTeX floats that fit a page; they need the packages booktabs, graphicx and rotating.

A table that is too wide for an upright page is turned; one that is too wide or too long for that page is split, with
the columns that name its rows in each piece.
"""

from collections.abc import Iterator
from dataclasses import replace

from obert.report.built import BuiltTable
from obert.report.parts import Block, Part, parts
from obert.statistics.formatting import DASH

PACKAGES = r"% \usepackage{booktabs,graphicx,rotating}"
SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",  # noqa: RUF001
    "λ": r"$\lambda$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    DASH: "--",
}
UPRIGHT, TURNED = "table", "sidewaystable"
# Characters across, and rows, that \scriptsize has room for on a page of LaTeX's class article.
ACROSS = {UPRIGHT: 88, TURNED: 140}
ROWS = {UPRIGHT: 48, TURNED: 26}
GAP = 2  # characters between columns
LONG, PARAGRAPH = 36, "p{5cm}"  # characters of a cell that stays on one line, and a column of longer ones
STEP = 4  # characters by which pieces are made narrower until they are of about one width
FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
IMAGE = r"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]"


def to_latex(built: BuiltTable) -> str:
    """A table or figure with caption, then warnings and notes. The lines of a note, commands, become comments."""
    pieces = list(_pieces(built)) if built.figure is None else [("figure", "", f"{IMAGE}{{{built.name}.png}}")]
    lines = [PACKAGES]
    for number, (kind, title, body) in enumerate(pieces, start=1):
        named = f"{built.title}, {title}" if title else built.title
        counted = f" ({number} of {len(pieces)})" if len(pieces) > 1 else ""
        caption = f"{escape(named)}{counted}." + (f" {escape(built.caption)}" if number == 1 else "")
        label = f"{'figure' if built.figure else 'table'}:{built.name}" + (f"-{number}" if number > 1 else "")
        lines += [f"\\begin{{{kind}}}", "\\centering", body, f"\\caption{{{caption}}}", f"\\label{{{label}}}"]
        lines += [f"\\end{{{kind}}}"]
    for note in (*built.warnings, *built.notes):
        text = escape(note.text).replace(r"\_", r"\_\allowbreak{}")  # names are long
        lines += [f"\\par{{\\footnotesize\\sloppy {text}\\par}}", *(f"% {line}" for line in note.lines)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _pieces(built: BuiltTable) -> Iterator[tuple[str, str, str]]:
    """The float, the title and the content of each piece of a table."""
    for part in (one for one in parts(built) if one.names):
        kind = UPRIGHT if _across(part, range(len(part.names))) <= ACROSS[UPRIGHT] else TURNED
        for columns in _column_pieces(part, ACROSS[kind]):
            for blocks in _row_pieces(part.blocks, ROWS[kind]):
                yield kind, part.title, _tabular(replace(part, blocks=blocks), columns)


def _cells(part: Part, column: int) -> list[str]:
    return [cells[column] for block in part.blocks for _, cells in block.rows]


def _across(part: Part, columns: range | list[int]) -> int:
    """The characters that some columns take, with the names of their groups."""
    total, widths = 0, {}
    for column in columns:
        width = min(max(map(len, (part.names[column], *_cells(part, column)))), LONG) + GAP
        widths[part.groups[column]] = widths.get(part.groups[column], 0) + width
    for group, width in widths.items():
        total += max(width, len(group) + GAP)
    return total


def _column_pieces(part: Part, most: int) -> list[list[int]]:
    """Columns of each piece: those that name the rows, and as many others as fit, a group's together if they can."""
    every = list(range(len(part.names)))
    numbers = [column for column in every if all(map(_is_number, _cells(part, column)))]
    first = numbers[0] if numbers else len(every)
    keys = [c for c in every if not part.groups[c]] if any(part.groups) else every[: max(first, 1)]
    together: dict[object, list[int]] = {}
    for column in every:
        if column not in keys:
            together.setdefault(part.groups[column] or column, []).append(column)
    units = []
    for columns in together.values():
        fits = _across(part, [*keys, *columns]) <= most
        units += [columns] if fits else [[column] for column in columns]
    pieces = _filled(part, keys, units, most)
    for narrower in range(most - STEP, 0, -STEP):  # as many pieces, of about the same width
        balanced = _filled(part, keys, units, narrower)
        if len(balanced) > len(pieces):
            break
        pieces = balanced
    return pieces


def _filled(part: Part, keys: list[int], units: list[list[int]], most: int) -> list[list[int]]:
    """Pieces that are filled one after the other."""
    pieces: list[list[int]] = [[*keys]]
    for unit in units:
        if len(pieces[-1]) > len(keys) and _across(part, [*pieces[-1], *unit]) > most:
            pieces.append([*keys])
        pieces[-1] += unit
    return [sorted(piece) for piece in pieces]


def _row_pieces(blocks: list[Block], most: int) -> list[list[Block]]:
    """Blocks of each piece of at most so many rows, headings included; a block that goes on keeps its heading."""
    pieces: list[list[Block]] = [[]]
    left = most
    for block in blocks:
        rows = block.rows
        while rows:
            extra = 1 if block.heading else 0
            if left <= extra:
                pieces.append([])
                left = most
            taken = rows[: left - extra]
            pieces[-1].append(Block(block.heading, taken))
            rows, left = rows[len(taken) :], left - extra - len(taken)
    return pieces


def _tabular(part: Part, columns: list[int]) -> str:
    alignment = "".join(_alignment(_cells(part, column)) for column in columns)
    chosen = replace(part, groups=[part.groups[c] for c in columns], names=[part.names[c] for c in columns])
    *spans, names = chosen.header
    lines = [r"\scriptsize\setlength{\tabcolsep}{3pt}", FITTED, f"\\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines += [_row([escape(t) if n == 1 else f"\\multicolumn{{{n}}}{{c}}{{{escape(t)}}}" for t, n in s]) for s in spans]
    lines += [_row([escape(text) for text, _ in names]), r"\midrule"]
    for block in part.blocks:
        if block.heading:
            lines.append(f"\\multicolumn{{{len(columns)}}}{{l}}{{\\emph{{{escape(block.heading)}}}}} \\\\")
        lines += [_row([escape(cells[c]) for c in columns]) for _, cells in block.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}"])


def _alignment(cells: list[str]) -> str:
    if all(map(_is_number, cells)):
        return "r"
    return PARAGRAPH if max(map(len, cells)) > LONG else "l"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _is_number(cell: str) -> bool:
    return cell == DASH or cell[:1].isdigit() or cell[:1] in ("+", "-")
