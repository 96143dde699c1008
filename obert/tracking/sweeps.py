"""Sweeps in MLflow: a parent run, and a nested run for each trial."""

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd

from obert.foundation.files import content_hash
from obert.foundation.locks import locked
from obert.tracking.naming import PATH_TAG
from obert.tracking.store import HASH_TAG, LOCK, TRIALS, connection, experiment_id, find_runs


def mirror_sweep(folder: Path, uri: str) -> bool:
    """Bring a sweep to MLflow: a parent run with its files, and a nested run for each trial.

    Args:
        folder: the sweep's, which is named after it and holds its trials.

    Returns:
        False if MLflow had these very trials already.

    Raises:
        UserError: the store cannot be used.
    """
    sweep = folder.name
    path = f"sweeps/{sweep}"
    with locked(folder / LOCK), connection(uri) as client:
        content = (folder / TRIALS).read_bytes()  # once: a worker may replace the file at any time
        trials, digest = pd.read_csv(io.BytesIO(content)), content_hash(content)
        identifier = experiment_id(client, trials["experiment"][0], uri)
        old = find_runs(client, identifier, f"tags.sweep = '{sweep}'")
        if digest in [run.data.tags.get(HASH_TAG) for run in old]:
            return False
        for run in old:
            client.delete_run(run.info.run_id)
        tags = {PATH_TAG: path, "stage": "sweep", "sweep": sweep}
        parent = client.create_run(identifier, run_name=path, tags=tags).info.run_id
        for _, runs in trials.groupby("trial"):
            _write_trial(client, identifier, parent, sweep, runs)
        client.log_text(parent, content.decode(), TRIALS)
        for file in sorted(folder.glob("*.*")):
            if file.suffix in (".csv", ".yaml", ".png", ".svg") and file.name != TRIALS:
                client.log_artifact(parent, str(file))
        client.set_terminated(parent)
        client.set_tag(parent, HASH_TAG, digest)
        return True


def _write_trial(client: Any, experiment: str, parent: str, sweep: str, runs: pd.DataFrame) -> None:
    """A nested run: what was tried, the objective, and the score of each run of the trial."""
    first = runs.iloc[0]
    state = str(first["state"])
    tags = {"mlflow.parentRunId": parent, "stage": "trial", "sweep": sweep, "state": state, "base": str(first["base"])}
    run = client.create_run(experiment, run_name=f"trial {first['trial']}", tags=tags).info.run_id
    start, end = runs.columns.get_loc("objective") + 1, runs.columns.get_loc("task")
    for name in runs.columns[start:end]:
        if pd.notna(first[name]):
            client.log_param(run, name, first[name])
    if not math.isnan(first["objective"]):
        client.log_metric(run, "objective", float(first["objective"]))
    for _, row in runs.dropna(subset="score").fillna({"sparsity": 0}).iterrows():
        client.log_metric(run, f"{row['task']}/{row['metric']}/{row['sparsity']:g}/seed{row['seed']:g}", row["score"])
    client.set_terminated(run, {"complete": "FINISHED", "stopped early": "KILLED"}.get(state, "FAILED"))
