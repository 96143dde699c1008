"""The report's order: what was measured first, and a line for each table of a paper that has no measured row."""

import re

import pandas as pd
import pytest

from obert.foundation import registry
from obert.report.built import build_table
from obert.report.report_page import report_page
from tables.examples import record


@pytest.fixture
def page(results):
    names = ("table1", "table2", "table17", "figure2", "figure6", "leaderboard", "figure3", "smc_bench")
    return report_page(results, [build_table(name, registry.load("tables", name)(), results) for name in names])


def position(page, title):
    (found,) = [match.start() for match in re.finditer(rf"<h3[^>]*>{title}", page)]
    return found


def test_the_page_begins_with_what_was_measured(page):
    start = page[: page.index("<nav")]
    for piece in ("movie_reviews", "obert, magnitude, movement", "90 %", "0, 1", "example, 2 layers, 1,000 parameters"):
        assert piece in start
    assert position(page, "Leaderboard<") < position(page, "Table 1 of the oBERT paper")
    assert page.index("<h2>Leaderboards") < page.index("<h2>Published and measured") < page.index("<h2>About the runs")


def test_a_table_of_a_paper_without_a_measured_row_is_one_line(page):
    body, rest = page.split('<h3 id="empty">')
    lines = re.findall(r'<li><a href="(\w+)\.html">', rest)
    assert lines == ["table2", "smc_bench"]
    assert not any(f'id="{name}"' in body for name in lines)
    assert "Table 2 of the oBERT paper" not in body
    assert "plans no run that belongs here" in rest and "Prune OFA" not in rest


def test_a_line_ends_before_what_leads_to_commands(make_results, example_runs):
    results = make_results(example_runs, sweeps={"ablation": pd.DataFrame()})
    page = report_page(results, [build_table("figure3", registry.load("tables", "figure3")(), results)])
    assert "The sweep ablation has no trials yet.</li>" in page and "To run it" not in page


def test_a_table_of_deviations_says_that_one_seed_has_none(make_results):
    """Every run was made, and none of them with a second seed."""
    made = record("downstream", 70.0, method="obert", sparsity=0.9)
    results = make_results([(record("teacher", 80.0), None, 0), (made, None, 0)])
    page = report_page(results, [build_table("table15", registry.load("tables", "table15")(), results)])
    assert "No deviation was measured: that takes two seeds or more of one of these runs.</li>" in page
