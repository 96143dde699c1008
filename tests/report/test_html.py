"""HTML of a table: escaping, splitting into parts, and the rules of the templates."""

import pandas as pd
import pytest
from jinja2 import UndefinedError

from obert.report.built import BuiltTable
from obert.report.html import TEMPLATES, render, table_page
from obert.report.parts import parts
from obert.report.text import to_markdown
from obert.tables import Note, Table


class Hostile(Table):
    title = "<script>"
    caption = "a & b"

    def build(self, results):
        raise NotImplementedError


class Split(Hostile):
    split_by = ("task",)
    headed_by = ("sparsity %",)

    def variants(self, content):
        return [f"{task}/{method}" for task, method in content[["task", "method"]].itertuples(index=False)]


class SplitByTask(Hostile):
    split_by = ("task",)


def built(shown, table=None, notes=()):
    return BuiltTable("name", table or Hostile(), shown, shown, (), tuple(notes), None)


def test_title_cells_and_notes_are_escaped():
    table = built(pd.DataFrame({"method": ["<b>|"]}), notes=[Note("<i>", ("<u>",))])
    page = table_page(table)
    assert not any(tag in page for tag in ("<b>", "<script>", "<i>", "<u>"))
    assert all(f"&lt;{name}&gt;" in page for name in ("b", "script", "i", "u")) and "a &amp; b" in page
    assert "<b>\\|" in to_markdown(table)


def test_rows_are_split_by_task_and_headed_by_sparsity():
    rows = [("qqp", "50.0", "obert"), ("qqp", "90.0", "obert"), ("qqp", "90.0", "random"), ("sst2", "90.0", "obert")]
    page = table_page(built(pd.DataFrame(rows, columns=["task", "sparsity %", "method"]), Split()))
    assert page.count("<table>") == 2
    order = ("<h4>qqp</h4>", "sparsity 50.0 %", "sparsity 90.0 %", "random", "<h4>sst2</h4>", "sparsity 90.0 %")
    position = 0
    for piece in order:
        position = page.index(piece, position) + 1


def test_a_column_of_dashes_is_left_out_of_the_part_that_it_says_nothing_in():
    rows = [("qqp", "obert", "1.5"), ("qqp", "random", "\N{EN DASH}"), ("sst2", "obert", "\N{EN DASH}")]
    table = built(pd.DataFrame(rows, columns=["task", "method", "speed-up"]), SplitByTask())
    qqp, sst2 = parts(table)
    assert qqp.names == ["method", "speed-up"] and sst2.names == ["method"]
    assert [cells for _, cells in sst2.blocks[0].rows] == [["obert"]]
    assert table_page(table).count(">speed-up</th>") == 1


def test_template_without_a_value_is_an_error():
    with pytest.raises(UndefinedError, match="built"):
        render("table.html.j2", title="A title")


def test_style_loads_nothing():
    style = (TEMPLATES / "style.css").read_text()
    assert "<" not in style and "url(" not in style and "@import" not in style
    assert style in table_page(built(pd.DataFrame({"method": ["obert"]})))
