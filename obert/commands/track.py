"""Mirror records and sweeps into MLflow."""

from functools import partial
from pathlib import Path

import pandas as pd

from obert.experiment.folders import runs_folder, sweep_folder
from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError
from obert.tracking.mirror import synchronize
from obert.tracking.store import TRIALS, initialize, try_artifacts
from obert.tracking.sweeps import mirror_sweep
from obert.tracking.unfinished import mark_killed


def run(plan: Plan) -> None:
    """Mirror every record and sweep that is not in MLflow yet; the database can be lost and rebuilt this way. Runs that
    are there as running, and have been killed, are marked.

    Raises:
        UserError: the store cannot be used; or, when all others are mirrored, which records and sweeps could not be.
    """
    experiment = plan.experiment
    uri = experiment.tracking_uri
    initialize(uri)
    try_artifacts(uri, experiment.name)
    steps = [partial(synchronize, runs_folder(experiment), uri, plan.config)]
    steps.append(partial(mark_killed, runs_folder(experiment), experiment.name, uri))
    steps += [partial(_mirror, trials, experiment) for trials in sorted(sweep_folder("").glob(f"*/{TRIALS}"))]
    problems = []
    for step in steps:
        try:
            step()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))


def _mirror(trials: Path, experiment: Experiment) -> None:
    """Mirror a sweep if it is this experiment's."""
    try:
        owner = pd.read_csv(trials, nrows=1)["experiment"][0]
    except (ValueError, KeyError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{trials} is damaged: {error}. Run the sweep again; its trials are kept") from None
    if owner == experiment.name:
        mirror_sweep(trials.parent, experiment.tracking_uri)
