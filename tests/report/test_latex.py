"""LaTeX of tables and figures: structure, escaping, notes."""

import re

import pandas as pd
import pytest
from matplotlib.figure import Figure

from obert.report.built import BuiltTable
from obert.report.latex import escape, to_latex
from obert.tables import Note, Table

UNESCAPED = re.compile(r"(?<!\\)[_#&%]")


class TableX(Table):
    title = "A title & more"
    caption = "90 % of a_b."

    def build(self, results):
        raise NotImplementedError


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


def test_figure_includes_its_png_and_has_no_tabular(grouped):
    text = to_latex(built(grouped, figure=Figure()))
    assert "\\includegraphics[width=\\linewidth]{table_x.png}" in text and "tabular" not in text
    assert text.splitlines()[-1] == "\\end{figure}"


def test_commands_of_a_note_become_comments(grouped):
    note = Note("3 runs of a_b are missing:", ("snakemake --cores all \\", "  results/a_b.json"))
    lines = to_latex(built(grouped, notes=[note])).splitlines()
    assert "\\par\\footnotesize 3 runs of a\\_b are missing:" in lines
    assert {"% snakemake --cores all \\", "%   results/a_b.json"} <= set(lines)


def test_escape_handles_every_special_character():
    assert escape("a_b & 5 % {x} ~ $1 #2 \\ ^") == (
        "a\\_b \\& 5 \\% \\{x\\} \\textasciitilde{} \\$1 \\#2 \\textbackslash{} \\textasciicircum{}"
    )
    assert not UNESCAPED.search(escape("_#&%"))
