"""What a run is called in MLflow, how it is described, and what the UI shows first of it.

All of it but the score is known before the run starts. What is said here of MLflow's UI was seen in 3.17: lists of
metrics, parameters and columns are sorted by their names' characters, capitals first, and charts by the part before a
slash, those without one last.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from obert.experiment.keys import RunKey
from obert.foundation import registry

PATH_TAG = "run_key"  # by which a run is found again; its name is for people
DESCRIPTION_TAG = "mlflow.note.content"  # Markdown, which the UI shows above a run
DENSE = "dense"
LONGEST_TITLE = 20  # characters of a task's, or the table of runs cuts off what follows
# Once more what matters most, under names that the UI puts first in every list and chart.
SCORE, SPARSITY = "Result/score", "Result/sparsity"
VIEW = "results"  # in the address of the runs' page: ?viewStateShareKey=results
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


def run_name(key: RunKey) -> str:
    """A run's name, with what differs between the runs of a grid first: `obert 90 % · SST-2 · gradual · seed 0`.

    No two keys have one name. The stage is named where it is another than `downstream`.
    """
    first = DENSE if key.method is None else f"{key.method} {100 * key.sparsity:g} %"
    if key.stage != "downstream":
        first += f" {key.stage}"
    return " · ".join((first, task_title(key.task), key.recipe, f"seed {key.seed}"))


def task_title(name: str) -> str:
    """A task's title as its file begins with it, such as "SST-2"; the name of one that has no short title."""
    if name not in registry.names("tasks"):  # an experiment's own name of a task
        return name
    title, colon, _ = (sys.modules[registry.load("tasks", name).__module__].__doc__ or "").partition(":")
    return title if colon and len(title) <= LONGEST_TITLE and "\n" not in title else name


def names(key: RunKey) -> dict[str, str]:
    """What a run is, the same in parameters, for the compare view, and in tags, for the search."""
    return {
        "stage": key.stage,
        "task": key.task,
        "recipe": key.recipe,
        "method": key.method or DENSE,
        "sparsity": "0" if key.sparsity is None else f"{key.sparsity:g}",
        "seed": str(key.seed),
    }


def tags(
    key: RunKey, *, family: str, spec_hash: str, environment: dict[str, Any], config: str | None
) -> dict[str, str]:
    """The tags that a run has from its start.

    Args:
        environment: as `obert.records.provenance.environment` gives it.
        config: the experiment's file, if it is known.
    """
    commit = environment.get("git_commit")
    found = {
        PATH_TAG: key.path,
        DESCRIPTION_TAG: description(key, config, commit),
        "family": family,
        "git_commit": commit,
        "git_dirty": environment.get("git_dirty"),
        "spec_hash": spec_hash,
        "mlflow.source.name": f"obert {key.stage}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
    }
    return names(key) | {name: str(value) for name, value in found.items() if value not in (None, "")}


def view(milliseconds: int) -> str:
    """The value of an experiment's tag that makes a view of its runs: columns that tell them apart, and their scores.

    Args:
        milliseconds: since 1970, the time that it is made.
    """
    columns = [f"metrics.`{name}`" for name in (SCORE, SPARSITY)]
    columns += [f"params.`{name}`" for name in ("stage", "task", "recipe", "method", "sparsity", "seed")]
    state = json.dumps({"selectedColumns": columns})
    return json.dumps({"name": "Results", "createdAt": milliseconds, "updatedAt": milliseconds, "state": state})


def description(key: RunKey, config: str | None, commit: str | None = None) -> str:
    """What a run is and the command that makes it again, in Markdown.

    Args:
        config: the experiment's file, if it is known.
        commit: of the code that made the run, if it is known.
    """
    made = f"Stage {key.stage} of `{key.path.as_posix()}`" + (f", made by commit `{commit}`." if commit else ".")
    return f"{made} The command that makes it again:\n\n    {command(key, config)}\n"


def command(key: RunKey, config: str | Path | None) -> str:
    """The command that makes a run, from the project's folder, on two lines."""
    of = "" if config is None else f" --config {shlex.quote(Path(config).as_posix())}"
    return f"python -m obert {key.stage}{of} \\\n      {key.arguments}"
