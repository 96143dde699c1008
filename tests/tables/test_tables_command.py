"""The stage: records or a tracking server in, files out."""

import os
import re
import shutil

import pytest
from killing import changes, chosen, killed_before_change
from planned import changed

from obert.commands import tables
from obert.experiment import folders
from obert.experiment.folders import runs_folder
from obert.experiment.plan import Plan
from obert.experiment.schema import Downstream, Experiment, Model
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.tables import Table
from obert.tracking import store
from obert.tracking.mirror import synchronize
from tables.examples import record, write_run

CONFIG = "configs/example.yaml"


@pytest.fixture
def plan(root, tmp_path, monkeypatch):
    """Two methods, two seeds, a table of each kind; results go to a temporary folder."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    experiment = Experiment(
        name="example",
        description="An <example>.",
        model=Model(source="example"),
        tasks={"movie_reviews": {}},
        seeds=(0, 1),
        teacher="finetune",
        downstream=(Downstream(recipes=("gradual",), methods=("magnitude", "obert"), sparsities=(0.9,)),),
        tables=(
            "leaderboard",
            "table1",
            "table15",
            "figure1",
            "figure8",
            "schedules",
            "accuracy_vs_sparsity",
            "figure2",
        ),
        tracking_uri=f"sqlite:///{tmp_path}/tracking/mlflow.db",
    )
    return Plan.of(experiment)


def _write(plan, keys=None, **fields):
    for position, key in enumerate(keys or plan.runs):
        chosen = {"recipe": key.recipe, "seed": key.seed, "method": key.method, "sparsity": key.sparsity}
        chosen |= {"spec_hash": plan[key].specification_hash, **fields}
        scores = {name: 100.0 * ((position + i) % 3 > 0) for i, name in enumerate("abcdef")}
        made = record(key.stage, sum(scores.values()) / 6, **chosen)
        write_run(runs_folder(plan.experiment), made, scores, steps=12)


def test_tables_of_a_paper_are_made_where_the_experiment_names_the_paper(plan, monkeypatch):
    every = {"leaderboard": None, "table1": "obert", "figure6": "obert", "ladder": "how_to_prune"}
    made_up = {name: type(name, (Table,), {"paper": paper}) for name, paper in every.items()}
    plans = [changed(plan, tables="all", papers=papers) for papers in (("obert",), ("how_to_prune",), ())]
    by_name = changed(plan, tables=("ladder",))
    monkeypatch.setattr(registry, "names", lambda kind: list(every))
    monkeypatch.setattr(registry, "load", lambda kind, name: made_up[name])
    general = ["leaderboard"]
    assert [tables.names(one) for one in plans] == [[*general, "table1", "figure6"], [*general, "ladder"], general]
    assert tables.names(by_name) == ["ladder"]


def test_the_tables_of_the_obert_paper_say_so():
    loaded = {name: registry.load("tables", name) for name in registry.names("tables")}
    of_the_paper = {name for name, table in loaded.items() if table.paper == "obert"}
    assert of_the_paper == {name for name in loaded if re.fullmatch(r"(table|figure)\d+", name)}


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tables_made_twice_or_from_mlflow_have_the_same_bytes(plan, tmp_path):
    _write(plan)
    report = tables.run(plan, CONFIG)
    first = _files(report.parent)
    assert first == _files(tables.run(plan, CONFIG).parent)
    store.initialize(plan.experiment.tracking_uri)
    assert synchronize(runs_folder(plan.experiment), plan.experiment.tracking_uri) == 5
    runs_folder(plan.experiment).rename(tmp_path / "moved")
    for path in report.parent.iterdir():
        path.unlink()
    assert first == _files(tables.run(plan, CONFIG, plan.experiment.tracking_uri).parent)
    assert {"leaderboard.csv", "table1.md", "schedules.svg", "accuracy_vs_sparsity.png", "report.html"} <= set(first)
    made = {name.partition(".")[0] for name in first} - {"report"}
    assert {f"{name}.tex" for name in made} == {name for name in first if name.endswith(".tex")}
    assert b"\\begin{tabular}" in first["table1.tex"] and b"figure2.png" in first["figure2.tex"]


def test_report_is_self_contained(plan):
    _write(plan)
    page = tables.run(plan, CONFIG).read_text()
    assert "An &lt;example&gt;." in page
    for piece in ("http://", "https://", "<script", "@import", "url("):
        assert piece not in page
    for piece in ("Example CPU", "f" * 40, "Leaderboard", "data:image/svg+xml", f"--config {CONFIG} --task"):
        assert piece in page


def test_a_report_that_would_be_too_large_links_its_largest_tables(plan, monkeypatch):
    _write(plan)
    whole = _files(tables.run(plan, CONFIG).parent)
    pages = {name: len(page) for name, page in whole.items() if name.endswith(".html") and name != tables.REPORT}
    unmeasured = "figure8.html"  # linked anyway, and not in the report
    del pages[unmeasured]
    room = sum(pages.values()) - max(pages.values()) - 1  # for all but two
    monkeypatch.setattr("obert.report.report_page.PAGE_BYTES", room)
    files = _files(tables.run(plan, CONFIG).parent)
    assert files | {tables.REPORT: None} == whole | {tables.REPORT: None}
    links = re.findall(r'href="([^"#]+)"', files[tables.REPORT].decode().replace("data:,", "#"))
    assert sorted(links) == sorted([*sorted(pages, key=pages.get)[-2:], unmeasured])
    assert whole[tables.REPORT].count(b'.html"') == 0
    assert len(whole[tables.REPORT]) - len(files[tables.REPORT]) > max(pages.values()) / 2
    assert files[tables.REPORT].count(b"<h3 id=") == whole[tables.REPORT].count(b"<h3 id=")


def test_tables_that_are_killed_anywhere_are_made_by_the_same_command(plan):
    plan = changed(plan, tables=("leaderboard",))
    _write(plan)
    folder = folders.tables_folder(plan.experiment)
    folder.parent.mkdir(parents=True)
    number = changes(lambda: tables.run(plan, CONFIG), folder)
    whole = _files(folder)
    for moment in chosen(4, number):
        shutil.rmtree(folder)
        assert killed_before_change(lambda: tables.run(plan, CONFIG), folder, moment)
        found = _files(folder) if folder.exists() else {}
        assert {name: content for name, content in found.items() if not name.endswith(".tmp")}.items() <= whole.items()
        assert len([name for name in found if name.endswith(".tmp")]) <= 1
        for left in folder.glob(".*.tmp"):  # an hour later
            os.utime(left, (0, 0))
        assert _files(tables.run(plan, CONFIG).parent) == whole


def test_an_experiment_without_records_says_so(plan):
    page = tables.run(plan, CONFIG).read_text()
    assert "has no records yet" in page
    assert "has no records yet" in tables.summary(plan)


def test_records_outside_the_plan_are_left_out_with_a_warning(plan):
    _write(plan)
    smaller = changed(plan, downstream=(Downstream(recipes=("gradual",), methods=("obert",), sparsities=(0.9,)),))
    folder = tables.run(smaller, CONFIG).parent
    assert "magnitude" not in (folder / "leaderboard.csv").read_text()
    assert "no longer plans their runs: 2." in (folder / "leaderboard.md").read_text()


def test_records_of_another_specification_give_a_warning(plan):
    _write(plan, spec_hash="1" * 64)
    text = (tables.run(plan, CONFIG).parent / "leaderboard.md").read_text()
    assert "Records made with another specification than the configuration now has: 5." in text


def test_damaged_record_is_named_and_leaves_the_old_files(plan):
    _write(plan)
    before = _files(tables.run(plan, CONFIG).parent)
    path = list(plan)[2].folder / "metrics.json"
    path.write_text("{")
    with pytest.raises(UserError, match=str(path)):
        tables.run(plan, CONFIG)
    assert _files(folders.tables_folder(plan.experiment)) == before


def test_the_summary_names_scores_missing_runs_and_folders(plan):
    _write(plan, list(plan.runs)[:-1])
    text = tables.summary(plan)
    assert "magnitude" in text and "(n=2)" in text and "dense" in text
    assert f"1 of {len(plan)} planned runs have no record yet." in text
    assert "report.html" in text and plan.experiment.tracking_uri in text
