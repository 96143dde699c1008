"""Mirror records and sweeps into MLflow."""

import pandas as pd

from obert.experiment.folders import runs_folder, sweep_folder
from obert.experiment.schema import Experiment
from obert.tracking.mirror import synchronize
from obert.tracking.store import TRIALS, initialize
from obert.tracking.sweeps import mirror_sweep


def run(experiment: Experiment) -> None:
    """Mirror every record and sweep that is not in MLflow yet; the database can be lost and rebuilt this way."""
    initialize(experiment.tracking_uri)
    synchronize(runs_folder(experiment), experiment.tracking_uri)
    for trials in sorted(sweep_folder("").glob(f"*/{TRIALS}")):
        if pd.read_csv(trials, nrows=1)["experiment"][0] == experiment.name:
            mirror_sweep(trials.parent, experiment.tracking_uri)
