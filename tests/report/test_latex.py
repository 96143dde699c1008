"""LaTeX of tables and figures: structure, escaping, notes."""

import re

import pandas as pd
import pytest
from matplotlib.figure import Figure

from obert.report.built import BuiltTable
from obert.report.html import table_page
from obert.report.latex import ACROSS, ROWS, escape, to_latex
from obert.report.text import to_markdown
from obert.tables import Note, Table

UNESCAPED = re.compile(r"(?<!\\)[_#&%]")


class TableX(Table):
    title = "A title & more"
    caption = "90 % of a_b."

    def build(self, results):
        raise NotImplementedError


class Split(TableX):
    split_by = ("task",)
    headed_by = ("sparsity %",)


def built(shown, figure=None, notes=()):
    return BuiltTable("table_x", TableX(), shown, shown, (), tuple(notes), figure)


@pytest.fixture
def grouped():
    columns = [("", "task"), ("", "sparsity %"), ("a_b, 10 epochs", "published"), ("a_b, 10 epochs", "measured")]
    rows = [("movie_reviews", "90.0", "88.31 ± 0.13 (n=3)", "\N{EN DASH}"), ("qqp", "97.0", "68.00*", "-1.50")]
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))


def test_table_has_groups_rows_and_caption(grouped):
    text = to_latex(built(grouped))
    lines = text.splitlines()
    assert "\\begin{tabular}{lrrr}" in lines
    assert "\\multicolumn{2}{c}{} & \\multicolumn{2}{c}{a\\_b, 10 epochs} \\\\" in lines
    assert "task & sparsity \\% & published & measured \\\\" in lines
    assert "movie\\_reviews & 90.0 & 88.31 $\\pm$ 0.13 (n=3) & -- \\\\" in lines
    assert "\\caption{A title \\& more. 90 \\% of a\\_b.}" in lines and "\\label{table:table_x}" in lines
    assert text.count("{") == text.count("}")


def test_table_without_groups_has_one_header_row():
    shown = pd.DataFrame({"model": ["a", "b"], "speed-up": ["1.50\N{MULTIPLICATION SIGN}", "\N{EN DASH}"]})
    text = to_latex(built(shown))
    assert "\\begin{tabular}{lr}" in text and "\na & 1.50$\\times$ \\\\\nb & -- \\\\\n" in text


def test_figure_includes_its_png_no_larger_than_a_page_and_has_no_tabular(grouped):
    text = to_latex(built(grouped, figure=Figure()))
    image = "\\includegraphics[width=\\linewidth,height=0.8\\textheight,keepaspectratio]{table_x.png}"
    assert image in text and "tabular" not in text
    assert text.splitlines()[-1] == "\\end{figure}"


def test_commands_of_a_note_become_comments(grouped):
    note = Note("3 runs of a_b are missing:", ("snakemake --cores all \\", "  results/a_b.json"))
    lines = to_latex(built(grouped, notes=[note])).splitlines()
    assert "\\par{\\footnotesize\\sloppy 3 runs of a\\_\\allowbreak{}b are missing:\\par}" in lines
    assert {"% snakemake --cores all \\", "%   results/a_b.json"} <= set(lines)


def test_a_column_of_dashes_is_left_out_of_every_format(grouped):
    grouped["a_b, 10 epochs", "difference"] = 2 * ["\N{EN DASH}"]
    table = built(grouped)
    assert "difference" not in to_latex(table) and "difference" not in table_page(table)
    assert "difference" not in to_markdown(table) and "measured" in to_markdown(table)


def test_a_table_without_rows_keeps_its_columns():
    text = to_latex(built(pd.DataFrame({"model": [], "score": []})))
    assert "model & score" in text


def wide(columns, rows=2):
    """Rows named by a task, with groups of two numbers."""
    content = {("", "task"): [f"task {row}" for row in range(rows)]}
    for number in range(columns):
        content |= {(f"method {number}", name): rows * [f"{number}.25"] for name in ("published", "measured")}
    return built(pd.DataFrame(content))


def pieces(text):
    """The tabulars, each as its lines."""
    return [piece.splitlines() for piece in re.findall(r"\\begin{tabular}.*?\\end{tabular}", text, re.DOTALL)]


@pytest.mark.parametrize(
    ("groups", "float_", "count"), [(2, "table", 1), (5, "sidewaystable", 1), (12, "sidewaystable", 2)]
)
def test_a_wide_table_is_turned_or_split_by_groups_of_columns(groups, float_, count):
    text = to_latex(wide(groups))
    found = pieces(text)
    assert len(found) == count == text.count(f"\\begin{{{float_}}}")
    assert all(any("task 1 &" in line for line in piece) for piece in found)
    names = re.findall(r"\\multicolumn\{2\}\{c\}\{(method \d+)\}", text)
    assert sorted(names) == sorted(f"method {number}" for number in range(groups))
    widths = [piece[0].count("r") for piece in found]
    assert max(widths) - min(widths) <= 2  # of about one width
    for piece in found:
        rows = [line for line in piece if "&" in line]
        assert max(map(len, rows)) <= ACROSS[float_] + 60  # commands included
    assert text.count("90 \\% of a\\_b.") == 1  # the caption is not repeated
    assert ("(1 of" in text) == (count > 1)


def test_a_long_table_goes_on_in_the_next_piece():
    found = pieces(to_latex(wide(1, rows=ROWS["table"] + 5)))
    assert [sum("&" in line for line in piece) - 2 for piece in found] == [ROWS["table"], 5]


def test_rows_keep_their_heading_where_a_table_is_split():
    rows = [("qqp", "50.0", f"method {i}") for i in range(3)] + [("qqp", "90.0", f"method {i}") for i in range(70)]
    shown = pd.DataFrame(rows, columns=["task", "sparsity %", "method"])
    text = to_latex(BuiltTable("table_x", Split(), shown, shown, (), (), None))
    found = pieces(text)
    assert len(found) == 2 and "A title \\& more, qqp (2 of 2)." in text
    headings = [[line for line in piece if "\\emph" in line] for piece in found]
    assert [len(piece) for piece in headings] == [2, 1] and "sparsity 90.0 \\%" in headings[1][0]
    assert sum(line.startswith("method ") for piece in found for line in piece) == 73 + 2  # and the header


def test_escape_handles_every_special_character():
    assert escape("a_b & 5 % {x} ~ $1 #2 \\ ^") == (
        "a\\_b \\& 5 \\% \\{x\\} \\textasciitilde{} \\$1 \\#2 \\textbackslash{} \\textasciicircum{}"
    )
    assert not UNESCAPED.search(escape("_#&%"))
