"""What would be made again: by specification, code, and the runs that a run is made from."""

from pathlib import Path

import pytest
import yaml
from planned import finish

from obert.experiment.estimates import Estimates
from obert.experiment.plan import Plan
from obert.records.finished import pending
from obert.records.record import FILE_NAME

TASK = "movie_reviews"


@pytest.fixture
def plan(root, tmp_path, monkeypatch):
    """Two teachers, and one pruned model that is distilled from one of them; its export and its timing."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    for section in ("upstream", "quantize", "sweeps"):
        content.pop(section, None)
    content["downstream"] = [
        {"recipes": ["smoke_gradual"], "methods": ["obert"], "tasks": [TASK], "sparsities": [0.8]},
    ]
    content["benchmark"]["recipes"] = ["smoke_gradual"]
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content))
    return Plan.load(str(path))


@pytest.fixture
def made(plan):
    for run in plan:
        finish(run)
    return plan


def left(plan):
    """Runs that are still to be made; what reads records once and keeps them says the same as what reads them now."""
    found = pending(plan)
    estimates = Estimates(plan, on_gpu=False)
    assert [run for run in plan if not estimates.is_done(run)] == found
    return found


def behind(plan, run):
    """A run and all that is made from it, in one step or several."""
    found = {run}
    for each in plan:  # each stands behind what it is made from
        if not found.isdisjoint(each.made_from):
            found.add(each)
    return [each for each in plan if each in found]


def test_what_has_no_record_is_left(plan):
    assert left(plan) == list(plan) != []


def test_nothing_is_left_of_what_was_made_as_it_is_planned(made):
    assert left(made) == []


@pytest.mark.parametrize("changes", [{"spec_hash": "0" * 64}, {"code_hash": "0" * 16}])
def test_another_specification_or_other_code_is_made_again_with_all_behind_it(made, changes):
    teacher = made.teacher(TASK)
    finish(teacher, **changes)
    found = left(made)
    assert found == behind(made, teacher) and 2 < len(found) < len(made), "the other task's are as they were"


def test_what_is_made_from_a_run_is_made_again_after_it(made):
    teacher = made.teacher(TASK)
    finish(teacher, wall_time_seconds=99.0)
    assert left(made) == [run for run in behind(made, teacher) if run is not teacher]


def test_a_record_that_is_damaged_is_none(made):
    [run] = made.of_stage("downstream")
    (run.folder / FILE_NAME).write_text("{")
    assert left(made) == behind(made, run)
