"""What tests do with planned runs."""

from pathlib import Path

import pytest
from tables.examples import record

from obert.experiment.plan import Plan, PlannedRun
from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME, Record, read_record, write_record


def results_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Let runs write below a folder, with records that do not name the machine."""
    patch.setattr("obert.experiment.folders.RESULTS", folder)
    patch.setattr("obert.records.recording.environment", dict)  # asking the CPU for its name takes a second


def make(run: PlannedRun) -> Record:
    """Make a run, as the command line does."""
    found = run.stage.run(run)
    run.drop_checkpoints()
    return found


def made(run: PlannedRun) -> Record:
    """The record of a run, which is made if it is not there."""
    path = run.folder / FILE_NAME
    return read_record(path) if path.exists() else make(run)


def made_as(run: PlannedRun) -> dict[str, object]:
    """What the record of a run that is made now says that it was made from."""
    return {
        "spec": run.specification,
        "spec_hash": run.specification_hash,
        "code_hash": run.code_hash,
        "inputs": {str(source.key.path): file_hash(source.folder / FILE_NAME) for source in run.made_from},
    }


def finish(run: PlannedRun, value: float | None = None, **changes: object) -> None:
    """Write the record of a run that has been made now, with its score in percent where one is given."""
    write_record(run.folder, record(run.key.stage, value, **{"recipe": run.key.recipe, **made_as(run), **changes}))


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
