"""Search the values of a recipe's keys: trials by any number of workers, then the recipe of the best of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from obert.commands import assets
from obert.experiment.plan import PlannedRun
from obert.foundation.errors import UserError, only_warns
from obert.foundation.files import atomic_path, file_hash, json_hash, write_text
from obert.foundation.locks import locked
from obert.pruning.shared.fisher_sharing import SharedFisher, sharing
from obert.records.finished import finished
from obert.records.record import FILE_NAME, MODEL, read_record
from obert.report.text import to_csv
from obert.sweeps.schema import Value
from obert.sweeps.search import Search, load_sweep
from obert.sweeps.trials import Outcome, Runs, Trials
from obert.tables._figures import save
from obert.tables._sweeps import OF_RUN, draw_history, draw_importances
from obert.tracking import store, sweeps
from obert.tracking.store import TRIALS


def run(path: Path | str, worker: int = 0, workers: int = 1) -> Path:
    """Run trials until there are none left, then write trials, figures and the best trial's recipe.

    Called again, it goes on where it was ended; a sweep that is over only writes its files anew.

    Args:
        path: the sweep's file.
        worker: this process's number, from 0.
        workers: how many processes to work with: this one starts the others, numbered after it.

    Returns:
        The recipe's file.

    Raises:
        UserError: a mistake in the sweep's file, a model that is missing, or every trial failed.
    """
    search = load_sweep(path)
    with locked(search.folder / "prepare.lock"):
        for name in assets.needed(search.original):
            assets.run(name)
        experiment = search.original.experiment
        store.initialize(experiment.tracking_uri)
        store.try_artifacts(experiment.tracking_uri, experiment.name)
        for source in search.sources:
            _make_source(search, source)
    command = [sys.executable, "-m", "obert", "sweep", "--config", str(path), "--worker"]
    runner = _Runner(search)
    with _workers(command, range(worker + 1, worker + workers)) as others, Trials(search, worker) as trials:
        trials.work(runner.evaluate)
        for other in others:
            other.wait()
        with locked(search.folder / "prepare.lock"):
            return _finish(search, trials)


@contextmanager
def _workers(command: list[str], numbers: Iterable[int]) -> Iterator[list[subprocess.Popen]]:
    """A block beside other workers. None outlives it, whatever ends it."""
    others: list[subprocess.Popen] = []
    try:
        for number in numbers:
            others.append(subprocess.Popen([*command, str(number)]))
        yield others
    finally:
        for other in others:
            other.terminate()
        for other in others:
            other.wait()


def _make_source(search: Search, source: PlannedRun) -> None:
    """Make a run that trials start from, unless it is there; an upstream model is the experiment's own."""
    if finished(source) is not None:
        return
    if source.stage.upstream:
        if not (source.folder / FILE_NAME).is_file():
            raise UserError(
                f"{search.path}: trials start from {source.folder}, which has not been made. Run `python -m obert "
                f"{source.stage.name} --config {search.sweep.experiment} {source.key.arguments}` first (or snakemake "
                "with that configuration)."
            )
        return
    print(f"{source.key.path}: made once for all trials", flush=True)
    source.stage.run(source)
    source.drop_checkpoints()


class _Runner:
    """Runs a trial's runs by the stages themselves. One-shot events of a worker share their Fisher where they may."""

    def __init__(self, search: Search):
        self.search = search
        self._kept = {(run.key.task, run.key.seed): SharedFisher() for run in search.runs}

    def evaluate(self, values: dict[str, Value]) -> Iterator[Runs]:
        """A trial's runs, those of the highest sparsity first."""
        for level in self.search.trial(values):
            yield [self._run(run) for run in level]

    def _run(self, run: PlannedRun) -> dict[str, Any]:
        key, record = run.key, finished(run)
        if record is None:
            with self._shared(run):
                record = run.stage.run(run)
            run.drop_checkpoints()
        shutil.rmtree(run.folder / MODEL, ignore_errors=True)  # a grid's models would fill the disk
        score = record.metrics[record.primary_metric]
        return {
            "task": key.task,
            "method": key.method,
            "sparsity": key.sparsity,
            "seed": key.seed,
            "metric": record.primary_metric,
            "score": score.value,
            "count": score.count,
            "seconds": record.wall_time_seconds,
        }

    def _shared(self, run: PlannedRun):
        if not run.recipe.is_one_shot:
            return nullcontext()
        of_others = {name: part for name, part in run.specification.items() if name not in ("key", "method")}
        inputs = [file_hash(source.folder / FILE_NAME) for source in run.made_from]
        return sharing(self._kept[run.key.task, run.key.seed], (json_hash(of_others), run.key.seed, *inputs))


def _finish(search: Search, trials: Trials) -> Path:
    """Write what a sweep leaves: its trials and the recipe, then figures and the mirror, which may fail."""
    outcomes = trials.outcomes()
    complete = [outcome for outcome in outcomes if outcome.objective is not None]
    if not complete:
        errors = [outcome.error for outcome in outcomes if outcome.error]
        raise UserError(f"every trial of sweep '{search.sweep.name}' failed. The first: {(errors or ['unknown'])[0]}")
    best = max(complete, key=lambda outcome: outcome.objective)
    content = search.recipe_content(best.parameters, _source(search, outcomes))
    search.recipe(content)
    table = _table(search, outcomes)
    write_text(search.folder / TRIALS, to_csv(table))
    recipe = search.folder / f"{search.sweep.recipe}.yaml"
    write_text(recipe, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    complete = f"obert sweep: {recipe} is complete, but"
    with only_warns(f"{complete} without its figures", f"python -m obert sweep --config {search.path}"):
        _draw(search, trials, table)
    with only_warns(f"{complete} not in MLflow", f"python -m obert track --config {search.sweep.experiment}"):
        sweeps.mirror_sweep(search.folder, search.original.experiment.tracking_uri)
    return recipe


def _draw(search: Search, trials: Trials, table: pd.DataFrame) -> None:
    figures = {"history": draw_history(table)}
    if importances := trials.importances():
        figures["importances"] = draw_importances(importances)
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            with atomic_path(search.folder / f"{name}.{kind}") as temporary:
                temporary.write_bytes(save(figure, kind))


def _source(search: Search, outcomes: list[Outcome]) -> str:
    """Where the values are from, without the score that they were chosen by: it is the highest of many, so too high."""
    sweep = search.sweep
    metrics = sorted({run["metric"] for outcome in outcomes for run in outcome.runs})
    sparsities = sorted({run.key.sparsity for run in search.runs if run.key.sparsity is not None})
    at = f" at {', '.join(f'{100 * sparsity:g} %' for sparsity in sparsities)}" if sparsities else ""
    counts = Counter(outcome.state for outcome in outcomes)
    others = "".join(f", {counts[state]} {state}" for state in ("stopped early", "failed") if counts[state])
    return (
        f"sweep {sweep.name} ({search.path.as_posix()}): the best of {len(outcomes)} trials (sampler {sweep.sampler}"
        f"{others}) by mean {', '.join(metrics)} on {', '.join(search.tasks)}{at}, judged on "
        f"{100 * sweep.held_out:g} % of the training examples, held out; experiment {search.original.experiment.name}, "
        f"seed {', '.join(map(str, search.held_out.experiment.seeds))}"
    )


def _table(search: Search, outcomes: list[Outcome]) -> pd.DataFrame:
    """One row a run of a trial, with the dense teacher's score on the same held-out examples."""
    teachers = {
        run.key.task: read_record(run.folder / FILE_NAME) for run in search.sources if run.stage.name == "teacher"
    }
    some = next(iter(teachers.values()))
    constant = {
        "experiment": search.original.experiment.name,
        "model": f"{some.model['source']}, {some.model['layers']} layers",
        "base": search.sweep.base,
        "held_out": search.sweep.held_out,
    }
    rows = []
    for outcome in outcomes:
        trial = {"trial": outcome.number, "state": outcome.state, "objective": outcome.objective}
        for one in outcome.runs or [{}]:
            dense = teachers[one["task"]].metrics[one["metric"]].value if one else None
            of_run = dict.fromkeys(OF_RUN) | one | {"dense": dense, "error": outcome.error}
            rows.append(constant | trial | dict.fromkeys(search.sweep.space) | outcome.parameters | of_run)
    return pd.DataFrame(rows)
