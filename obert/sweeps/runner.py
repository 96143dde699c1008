"""Search the values of a recipe's keys: trials by any number of workers, then the recipe of the best of them."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from obert.commands import assets
from obert.data.sources import needed_assets
from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey, arguments
from obert.experiment.plan import code_of, source_keys, specification, specification_hash
from obert.experiment.recipes import recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path, file_hash, write_text
from obert.foundation.locks import locked
from obert.pruning.shared.fisher_sharing import SharedFisher, sharing
from obert.records.record import FILE_NAME, Record, read_record
from obert.records.run import MODEL
from obert.report.rendering import csv_text
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
        for name in needed_assets(search.original):
            assets.run(name)
        store.initialize(search.original.tracking_uri)
        for key in search.sources:
            _make_source(search, key)
    command = [sys.executable, "-m", "obert", "sweep", "--config", str(path), "--worker"]
    others = [subprocess.Popen([*command, str(worker + i)]) for i in range(1, workers)]
    runner = _Runner(search)
    with Trials(search, worker) as trials:
        try:
            trials.work(runner.evaluate)
            for other in others:
                other.wait()
        except BaseException:
            for other in others:
                other.terminate()
            raise
        with locked(search.folder / "prepare.lock"):
            return _finish(search, trials)


def _make_source(search: Search, key: RunKey) -> None:
    """Make a run that trials start from, unless it is there; an upstream model is the experiment's own."""
    if key.stage.startswith("upstream"):
        own = replace(key, seed=search.original.seeds[0])
        folder = run_folder(search.original, own)
        if not (folder / FILE_NAME).is_file():
            raise UserError(
                f"{search.path}: trials start from {folder}, which has not been made. Run `python -m obert {own.stage} "
                f"--config {search.sweep.experiment} {arguments(own)}` first (or snakemake with that configuration)."
            )
        _link(folder, run_folder(search.held_out, key))
    elif _finished(search.held_out, key) is None:
        print(f"{key.path}: made once for all trials", flush=True)
        importlib.import_module(f"obert.stages.{key.stage}").run(search.held_out, key)


def _link(target: Path, link: Path) -> None:
    """A folder under another name, from which the way to it is relative."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()), target_is_directory=True)


def _finished(experiment: Experiment, key: RunKey) -> Record | None:
    """The record of a run that was made from the same specification, code and models before."""
    path = run_folder(experiment, key) / FILE_NAME
    if not path.is_file():
        return None
    record = read_record(path)
    sources = {str(s.path): file_hash(run_folder(experiment, s) / FILE_NAME) for s in source_keys(experiment, key)}
    made_from = (specification_hash(specification(experiment, key)), code_of(key), sources)
    return record if (record.spec_hash, record.code_hash, record.inputs) == made_from else None


class _Runner:
    """Runs a trial's runs by the stages themselves. One-shot events of a worker share their Fisher where they may."""

    def __init__(self, search: Search):
        self.search = search
        self.stage = importlib.import_module(f"obert.stages.{search.sweep.stage}")
        self._kept = {(key.task, key.seed): SharedFisher() for key in search.keys}

    def evaluate(self, values: dict[str, Value]) -> Iterator[Runs]:
        """A trial's runs, those of the highest sparsity first."""
        for level in self.search.levels:
            yield [self._run(key, values) for key in level]

    def _run(self, key: RunKey, values: dict[str, Value]) -> dict[str, Any]:
        experiment = self.search.run_of(key, values)
        for source in source_keys(experiment, key):
            _link(run_folder(self.search.held_out, source), run_folder(experiment, source))
        record = _finished(experiment, key)
        if record is None:
            with self._shared(experiment, key):
                record = self.stage.run(experiment, key)
        shutil.rmtree(run_folder(experiment, key) / MODEL, ignore_errors=True)  # a grid's models would fill the disk
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

    def _shared(self, experiment: Experiment, key: RunKey):
        if not recipe_for(experiment, key.recipe, key.task).is_one_shot:
            return nullcontext()
        spec = specification(experiment, key)
        of_others = {name: part for name, part in spec.items() if name not in ("key", "method")}
        inputs = [file_hash(run_folder(experiment, s) / FILE_NAME) for s in source_keys(experiment, key)]
        return sharing(self._kept[key.task, key.seed], (specification_hash(of_others), key.seed, *inputs))


def _finish(search: Search, trials: Trials) -> Path:
    """Write what a sweep leaves, the recipe last."""
    outcomes = trials.outcomes()
    complete = [outcome for outcome in outcomes if outcome.objective is not None]
    if not complete:
        errors = [outcome.error for outcome in outcomes if outcome.error]
        raise UserError(f"every trial of sweep '{search.sweep.name}' failed. The first: {(errors or ['unknown'])[0]}")
    best = max(complete, key=lambda outcome: outcome.objective)
    content = search.recipe_content(best.parameters, _source(search, outcomes))
    search.recipe(content)
    table = _table(search, outcomes)
    write_text(search.folder / TRIALS, csv_text(table))
    figures = {"history": draw_history(table)}
    if importances := trials.importances():
        figures["importances"] = draw_importances(importances)
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            with atomic_path(search.folder / f"{name}.{kind}") as temporary:
                temporary.write_bytes(save(figure, kind))
    recipe = search.folder / f"{search.sweep.recipe}.yaml"
    write_text(recipe, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))
    sweeps.mirror_sweep(search.folder, search.original.tracking_uri)
    return recipe


def _source(search: Search, outcomes: list[Outcome]) -> str:
    """Where the values are from, without the score that they were chosen by: it is the highest of many, so too high."""
    sweep = search.sweep
    metrics = sorted({run["metric"] for outcome in outcomes for run in outcome.runs})
    sparsities = sorted({key.sparsity for key in search.keys if key.sparsity is not None})
    at = f" at {', '.join(f'{100 * sparsity:g} %' for sparsity in sparsities)}" if sparsities else ""
    counts = Counter(outcome.state for outcome in outcomes)
    others = "".join(f", {counts[state]} {state}" for state in ("stopped early", "failed") if counts[state])
    return (
        f"sweep {sweep.name} ({search.path.as_posix()}): the best of {len(outcomes)} trials (sampler {sweep.sampler}"
        f"{others}) by mean {', '.join(metrics)} on {', '.join(search.tasks)}{at}, judged on "
        f"{100 * sweep.held_out:g} % of the training examples, held out; experiment {search.original.name}, seed "
        f"{', '.join(map(str, search.held_out.seeds))}"
    )


def _table(search: Search, outcomes: list[Outcome]) -> pd.DataFrame:
    """One row a run of a trial, with the dense teacher's score on the same held-out examples."""
    teachers = {
        key.task: read_record(run_folder(search.held_out, key) / FILE_NAME)
        for key in search.sources
        if key.stage == "teacher"
    }
    some = next(iter(teachers.values()))
    constant = {
        "experiment": search.original.name,
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
            rows.append(constant | trial | outcome.parameters | of_run)
    return pd.DataFrame(rows)
