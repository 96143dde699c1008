"""Runs in MLflow whose record is still to come: which there are, and which of them a process is at.

A run that is logged while it is made is marked with its identity from the start. It is alive as long as a process holds
the lock in its folder. What is not alive may be continued by the next process that makes the same run.
"""

from pathlib import Path
from typing import Any

from obert.foundation.locks import is_held, locked
from obert.records.record import Record
from obert.tracking.naming import PATH_TAG
from obert.tracking.store import HASH_TAG, connection, find_runs

IDENTITY_TAG = "live_identity"
LIVE_LOCK = ".live.lock"  # in the run's folder, held by the process that logs it


def identity(record: Record) -> str:
    """What a run must be of to be continued: specification and code, as for its checkpoints."""
    return f"{record.spec_hash}-{record.code_hash}"


def is_unfinished(run: Any) -> bool:
    """Whether an MLflow run is one that was, or is, logged while it is made, and has no record yet."""
    return IDENTITY_TAG in run.data.tags and HASH_TAG not in run.data.tags


def is_alive(folder: Path) -> bool:
    """Whether the run in a folder is being logged."""
    return is_held(folder / LIVE_LOCK)


def mark_killed(runs: Path, experiment: str, uri: str) -> int:
    """Mark the runs of an experiment that are said to be running and are not: of which the lock is there, and free.

    Args:
        runs: the folder of all the experiment's runs. Of runs that another folder holds, nothing is known.

    Returns:
        How many.

    Raises:
        UserError: the store or the locks cannot be used.
    """
    marked = 0
    with connection(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage == "deleted":
            return 0
        for run in find_runs(client, found.experiment_id, "attributes.status = 'RUNNING'"):
            lock = runs / run.data.tags.get(PATH_TAG, "") / LIVE_LOCK
            if is_unfinished(run) and lock.exists():
                try:
                    with locked(lock, wait=False):
                        client.set_terminated(run.info.run_id, "KILLED")
                        marked += 1
                except BlockingIOError:  # it is alive
                    continue
    return marked
