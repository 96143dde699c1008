"""Mirror records and sweeps into MLflow."""

import pandas as pd

from obert import tracking
from obert.plan import runs_folder, sweep_folder
from obert.schema import Experiment


def run(experiment: Experiment) -> None:
    """Mirror every record and sweep that is not in MLflow yet; the database can be lost and rebuilt this way."""
    tracking.initialize(experiment.tracking_uri)
    tracking.synchronize(runs_folder(experiment), experiment.tracking_uri)
    for trials in sorted(sweep_folder("").glob(f"*/{tracking.TRIALS}")):
        if pd.read_csv(trials, nrows=1)["experiment"][0] == experiment.name:
            tracking.mirror_sweep(trials.parent, experiment.tracking_uri)
