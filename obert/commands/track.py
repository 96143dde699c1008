"""Mirror records and sweeps into MLflow."""

import pandas as pd

from obert.experiment.folders import runs_folder, sweep_folder
from obert.experiment.schema import Experiment
from obert.tracking import mirror as tracking
from obert.tracking import store, sweeps


def run(experiment: Experiment) -> None:
    """Mirror every record and sweep that is not in MLflow yet; the database can be lost and rebuilt this way."""
    store.initialize(experiment.tracking_uri)
    tracking.synchronize(runs_folder(experiment), experiment.tracking_uri)
    for trials in sorted(sweep_folder("").glob(f"*/{store.TRIALS}")):
        if pd.read_csv(trials, nrows=1)["experiment"][0] == experiment.name:
            sweeps.mirror_sweep(trials.parent, experiment.tracking_uri)
