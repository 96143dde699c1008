"""What tests do with planned runs."""

from pathlib import Path

import pytest

from obert.experiment.plan import Plan, PlannedRun
from obert.records.record import Record, read_record


def results_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let runs write below a folder, with records that do not name the machine."""
    patch.setattr("obert.experiment.folders.RESULTS", folder)
    patch.setattr("obert.records.recording.environment", dict)  # asking the CPU for its name takes a second


def make(run: PlannedRun) -> Record:
    """Make a run, as the command line does."""
    record = run.stage.run(run)
    run.drop_checkpoints()
    return record


def made(run: PlannedRun) -> Record:
    """The record of a run, which is made if it is not there."""
    path = run.folder / "metrics.json"
    return read_record(path) if path.exists() else make(run)


def at(plan: Plan, run: PlannedRun, stage: str) -> PlannedRun:
    """The same model at another stage."""
    return plan[run.key.at(stage)]


def changed(plan: Plan, **update) -> Plan:
    """The plan of an experiment with other values."""
    return Plan.of(plan.experiment.model_copy(update=update))


def upstream_teacher(plan: Plan) -> PlannedRun:
    """The dense upstream teacher."""
    (run,) = plan.of_stage("upstream_teacher")
    return run
