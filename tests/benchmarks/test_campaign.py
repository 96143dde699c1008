"""What a large experiment takes grows with its runs and no faster: counted, not timed."""

import sys
from collections import Counter

import _pretended
import campaign
import numpy as np
import pytest

from obert.commands import check, tables
from obert.commands import plan as plan_command
from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.records import record
from obert.report.built import build_table
from obert.tables import _results

SLACK = 1.02  # of steps a run, over those of the smaller experiment, whose fixed part weighs more


def small(tasks, seeds):
    """The campaign with fewer methods and sparsities."""
    content = campaign.experiment(tasks, seeds)
    del content["extensions"]
    content["downstream"] = [
        {"recipes": ["smoke_gradual"], "methods": ["magnitude", "obert"], "sparsities": [0.8, 0.9]},
        {"recipes": ["smoke_one_shot"], "methods": ["magnitude", "obert", "random"], "sparsities": [0.5, 0.8]},
    ]
    content["quantize"][0]["models"] = ["smoke_gradual"]
    content["benchmark"]["recipes"] = ["smoke_gradual", "smoke_quantize"]
    return Experiment.model_validate(content)


def steps(action) -> int:
    """How often an action calls a function, of Python or of C."""
    counted = 0

    def count(_frame, event, _argument):
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return counted


@pytest.fixture
def pretended(root, tmp_path, monkeypatch):
    """Plans of a number of tasks and seeds, with short records of all their runs."""
    monkeypatch.setattr(_pretended, "EXAMPLES", 6)
    monkeypatch.setattr(_pretended, "STEPS", 12)
    monkeypatch.setattr(_pretended, "LAYERS", 2)

    def make(tasks, seeds):
        monkeypatch.setattr(folders, "RESULTS", tmp_path / f"{tasks}-{seeds}")
        plan, generator = Plan.of(small(tasks, seeds)), np.random.default_rng(0)
        for run in plan:
            _pretended.write_run(run, generator, {"cpu": "none"})
        return plan

    return make


def everything(plan):
    """All tables and figures, not yet drawn."""
    results = tables.load_results(plan, campaign.CONFIG, folders.runs_folder(plan.experiment))
    return [build_table(name, registry.load("tables", name)(), results) for name in tables.names(plan)]


FILES = (record.FILE_NAME, record.PREDICTIONS, record.CURVES)
GROWTH = {"tasks": ((2, 2), (4, 2)), "seeds": ((2, 2), (2, 4))}


@pytest.mark.parametrize("growth", GROWTH)
def test_steps_of_planning_grow_with_the_runs(root, growth):
    def planned(size):
        plan = Plan.of(small(*size))
        for run in plan:
            _ = run.key.path, run.folder, run.made_from, run.specification_hash, run.code_hash
        return plan

    def warmed(size):  # what is imported and read once for all experiments does not count
        planned(size)
        return size

    few, many = (steps(lambda size=size: planned(size)) / len(planned(size)) for size in map(warmed, GROWTH[growth]))
    assert many <= SLACK * few


@pytest.mark.parametrize("growth", GROWTH)
def test_steps_of_tables_grow_with_the_runs(pretended, monkeypatch, growth):
    monkeypatch.setattr("obert.report.built.fix_layout", lambda figure: None)
    monkeypatch.setattr("obert.tables.Table.draw", lambda *_: None)
    for name in registry.names("tables"):
        monkeypatch.setattr(registry.load("tables", name), "draw", lambda *_: None)
    found = []
    for size in GROWTH[growth]:
        plan = pretended(*size)
        if not found:
            everything(plan)  # imports
        found.append(
            (steps(lambda plan=plan: everything(plan)), steps(lambda plan=plan: plan_command.run(plan, {})), len(plan))
        )
    (few_tables, few_status, few), (many_tables, many_status, many) = found
    assert many_tables / many <= SLACK * few_tables / few
    assert many_status / many <= SLACK * few_status / few


def test_each_record_is_read_once_and_no_file_once_for_every_table(pretended, monkeypatch):
    plan = pretended(2, 2)
    read = Counter()
    read_with_bytes, each_line, curves = record.read_with_bytes, _results.Results.each_line, _results.Results.curves

    def counted_record(path):
        read[path] += 1
        return read_with_bytes(path)

    def counted_lines(self, key, name, take):
        read[self.folder / key.path / name] += 1
        return each_line(self, key, name, take)

    def counted_curves(self, key):
        read[self.folder / key.path / record.CURVES] += 1
        return curves(self, key)

    monkeypatch.setattr(record, "read_with_bytes", counted_record)
    monkeypatch.setattr(_results.Results, "each_line", counted_lines)
    monkeypatch.setattr(_results.Results, "curves", counted_curves)
    everything(plan)
    times = {name: {count for path, count in read.items() if path.name == name} for name in FILES}
    assert times[record.FILE_NAME] == {1}
    assert max(times[record.PREDICTIONS]) <= 4  # scores, right answers, further metrics, whether all are one
    assert max(times[record.CURVES]) <= 4  # one for each figure of curves: to hold those of all runs takes gigabytes


def test_every_method_can_be_run_on_the_campaigns_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    assert check.run(campaign.make_project(tmp_path, 4, 1)).startswith("experiment campaign: ")
