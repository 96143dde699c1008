"""What all runs of an experiment rely on: the tracking database, its assets, and a check of the whole of it."""

from pathlib import Path

from obert.commands import assets
from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.experiment.sizes import Sizes
from obert.foundation.code_identity import code_hash
from obert.foundation.files import json_hash, write_text
from obert.models import architectures
from obert.tracking import store


def run(plan: Plan) -> Path:
    """Create the database and try to keep a file there, fetch assets, check. What has not changed since the last time
    is not checked again.

    Returns:
        The check's report.

    Raises:
        UserError: everything that would stop a run later.
    """
    experiment = plan.experiment
    store.initialize(experiment.tracking_uri)
    store.try_artifacts(experiment.tracking_uri, experiment.name)
    for name in assets.needed(plan):
        assets.run(name)
    report = folders.RESULTS / "logs" / experiment.name / "check.txt"
    identity = f"identity {_identity(plan)}"
    if (
        Sizes.path(experiment).is_file()
        and report.is_file()
        and report.read_text(encoding="utf-8").splitlines()[-1:] == [identity]
    ):
        print(f"checked before: {report}")
    else:
        from obert.commands import check  # its imports take seconds

        found = check.run(plan)
        print(found)
        write_text(report, f"{found}\n{identity}\n")
    return report


def _identity(plan: Plan) -> str:
    return json_hash([[run.specification for run in plan], code_hash(commands="check", **architectures.code())])
