"""Where runs, checkpoints, sweeps and tables are."""

from pathlib import Path

from obert.experiment.keys import RunKey
from obert.experiment.schema import Experiment

RESULTS = Path("results")


def runs_folder(experiment: Experiment) -> Path:
    """Where an experiment's runs are."""
    return RESULTS / "runs" / experiment.name


def run_folder(experiment: Experiment, key: RunKey) -> Path:
    """Where a run's record and its files are."""
    return runs_folder(experiment) / key.path


def checkpoint_folder(experiment: Experiment, key: RunKey) -> Path:
    """Where a run keeps its training checkpoints: outside the outputs that Snakemake deletes when a job fails."""
    return RESULTS / "checkpoints" / experiment.name / key.path


def log_file(experiment: Experiment, key: RunKey) -> Path:
    """What the job that makes a run writes, if Snakemake starts it."""
    return RESULTS / "logs" / experiment.name / f"{key.path}.log"


def tables_folder(experiment: Experiment) -> Path:
    """Where an experiment's tables, figures and report are."""
    return RESULTS / "tables" / experiment.name


def sweep_folder(name: str) -> Path:
    """Where a sweep's journal, trials, figures and recipe are."""
    return RESULTS / "sweeps" / name
