"""Mirror records into MLflow."""

from obert import tracking
from obert.plan import runs_folder
from obert.schema import Experiment


def initialize(experiment: Experiment) -> None:
    """Create the database, in one process, before parallel runs write to it."""
    tracking.initialize(experiment.tracking_uri)


def run(experiment: Experiment) -> None:
    """Mirror every record that is not in MLflow yet; the database can be lost and rebuilt this way."""
    initialize(experiment)
    tracking.synchronize(runs_folder(experiment), experiment.tracking_uri)
