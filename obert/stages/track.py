"""Mirror records into MLflow."""

from obert import tracking
from obert.plan import runs_folder
from obert.schema import Experiment


def run(experiment: Experiment) -> None:
    """Mirror every record that is not in MLflow yet; the database can be lost and rebuilt this way."""
    tracking.initialize(experiment.tracking_uri)
    tracking.synchronize(runs_folder(experiment), experiment.tracking_uri)
