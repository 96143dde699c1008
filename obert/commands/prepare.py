"""What all runs of an experiment rely on: its assets, a check of the whole of it, and the tracking database."""

import hashlib
import json
from pathlib import Path

from obert.commands import assets, check
from obert.data.sources import needed_assets
from obert.experiment import folders, plan
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.foundation.files import write_text
from obert.tracking import store


def run(experiment: Experiment) -> Path:
    """Fetch assets, check, and create the database. What has not changed since the last time is not checked again.

    Returns:
        The check's report.

    Raises:
        UserError: everything that would stop a run later.
    """
    for name in needed_assets(experiment):
        assets.run(name)
    report, identity = folders.RESULTS / "logs" / experiment.name / "check.txt", f"identity {_identity(experiment)}"
    if report.is_file() and report.read_text(encoding="utf-8").splitlines()[-1:] == [identity]:
        print(f"checked before: {report}")
    else:
        found = check.run(experiment)
        print(found)
        write_text(report, f"{found}\n{identity}\n")
    store.initialize(experiment.tracking_uri)
    return report


def _identity(experiment: Experiment) -> str:
    specifications = [plan.specification(experiment, key) for key in plan.all_keys(experiment)]
    content = json.dumps([specifications, code_hash("check")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
