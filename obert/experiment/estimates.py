"""How long runs will take, and how much memory: by finished runs like them, and where there are none, by stated rates.

Unlike what a job asks a machine for (`resources`), which is rather too much, this is what is to be expected.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import iglob
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from obert.experiment import folders
from obert.experiment.keys import RunKey
from obert.experiment.resources import cpus_of, expected_seconds, memory_parts, operations
from obert.experiment.sizes import Sizes
from obert.foundation.errors import UserError
from obert.foundation.files import content_hash, json_hash
from obert.records.durations import run_seconds
from obert.records.finished import is_as_planned
from obert.records.record import FILE_NAME
from obert.training.schedules import steps_per_epoch, total_steps

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun

START = 10.0  # seconds of imports, of loading model and data, and of writing, where no finished run like it tells
# What an estimate goes by, the surest first.
ALIKE, TARGET, STEPS, WORK, RATE = BASES = (
    "finished runs of the same recipe and target",
    "finished runs of the same recipe",
    "the pace of finished runs on the same task and model",
    "the pace of this experiment's finished runs",
    "a stated rate",
)


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        seconds: from the start of its process to its end.
        memory_mb: of the machine at the most, in MB of 10^6 bytes.
        basis: one of `BASES`.
        count: finished runs that it goes by.
    """

    seconds: float
    memory_mb: float
    basis: str
    count: int = 0


@dataclass(frozen=True)
class Cost:
    """What a finished run took.

    Attributes:
        names: that it shares with the runs like it, by what an estimate goes by.
        data: name of the data that it was trained on.
        spec_hash, code_hash, inputs: what it was made from, as in its record.
        record_hash: sha256 of its record.
        seconds, memory_mb: as in `Estimate`.
        steps: optimiser steps; 0 without training.
        features: training features, None where its record has none.
    """

    names: Mapping[str, str]
    data: str
    spec_hash: str
    code_hash: str
    inputs: Mapping[str, str]
    record_hash: str
    seconds: float
    memory_mb: float
    on_gpu: bool
    steps: float
    features: int | None


def _named(spec: Mapping[str, Any], *without: str) -> str:
    """A name for all runs of a specification but for some parts of their keys."""
    return json_hash({**spec, "key": {name: v for name, v in spec["key"].items() if name not in without}})


def _on(spec: Mapping[str, Any]) -> str:
    """A name for all runs of a stage and method on the same task and model: their steps take the same time."""
    key, recipe = spec["key"], spec.get("recipe") or {}
    training = {**(recipe.get("training") or {}), "epochs": None, "learning_rate": None}
    parts = [key["stage"], key["task"], key["method"], spec["task"], spec["threads"], spec.get("model")]
    return json_hash([*parts, spec.get("method"), spec.get("benchmark"), training, recipe.get("distillation")])


def _data(task: str, spec: Mapping[str, Any]) -> str:
    """A name for the data of a task."""
    return json_hash([task, spec])


NAMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ALIKE: lambda spec: _named(spec, "seed"),
    TARGET: lambda spec: _named(spec, "seed", "sparsity"),
    STEPS: _on,
}


class Estimates:
    """What the runs of an experiment are expected to take.

    Args:
        on_gpu: whether this machine has a GPU; as this experiment's runs had one, if some are finished. Only runs that
            were made with one, or only such as were not, count.
    """

    def __init__(self, plan: Plan, on_gpu: bool):
        self._plan, self._here = plan, on_gpu
        self._read: dict[Path, tuple[float, Cost | None]] = {}
        self._found: dict[RunKey, Estimate | None] = {}
        self._group()
        self.update()

    def update(self) -> None:
        """Read what has been finished since."""
        changed, runs = False, folders.RESULTS / "runs"
        # Unlike Path.glob, it passes over folders that are deleted meanwhile, as Snakemake does when a job fails.
        for name in sorted(iglob(f"*/*/*/*/*/*/{FILE_NAME}", root_dir=runs)):  # noqa: PTH207
            path = runs / name
            try:
                at = path.stat().st_mtime
            except OSError:
                continue
            if path not in self._read or self._read[path][0] != at:
                self._read[path] = (at, _cost(path))
                changed = True
        if changed:
            self._found = {}
            self._group()

    def _group(self) -> None:
        own = [cost.on_gpu for run in self._plan if (cost := self.cost_of(run)) is not None]
        self._on_gpu = 2 * sum(own) > len(own) if own else self._here
        known = [cost for _, cost in self._read.values() if cost is not None]
        costs = [cost for cost in known if cost.on_gpu == self._on_gpu]
        self._named: dict[str, dict[str, list[Cost]]] = {basis: {} for basis in NAMES}
        for cost in costs:
            for basis, name in cost.names.items():
                self._named[basis].setdefault(name, []).append(cost)
        self._done: dict[RunKey, bool] = {}
        self._sizes = Sizes.of(self._plan.experiment)
        self._features = {cost.data: cost.features for cost in known if cost.features}
        self._pace = self._paces()

    def _paces(self) -> dict[str, list[float]]:
        """By stage, what each finished run of the plan took over what it takes at the stated rates, its start left
        out."""
        found: dict[str, list[float]] = {}
        for run in self._plan.trained:
            cost, stated = self.cost_of(run), self._stated(run)
            if cost is not None and stated:
                found.setdefault(run.key.stage, []).append(max(cost.seconds - START, 0.0) / stated)
        return found

    def _cost_at(self, run: PlannedRun) -> Cost | None:
        """What a run took whose record is there, to whatever specification it was made."""
        return self._read.get(run.folder / FILE_NAME, (0.0, None))[1]

    def cost_of(self, run: PlannedRun) -> Cost | None:
        """What a run of this specification took, whatever code made it; None where none is finished."""
        cost = self._cost_at(run)
        return cost if cost is not None and cost.spec_hash == run.specification_hash else None

    def is_done(self, run: PlannedRun) -> bool:
        """Whether nothing would make a run again, as `records.finished.pending` has it, by what was read last."""
        if run.key not in self._done:
            cost = self._cost_at(run)
            self._done[run.key] = cost is not None and is_as_planned(run, cost, self._record_hash)
        return self._done[run.key]

    def _record_hash(self, run: PlannedRun) -> str | None:
        return self._cost_at(run).record_hash if self.is_done(run) else None

    def features_of(self, run: PlannedRun) -> int | None:
        """Training features of a run, as finished runs on the same data or the check have counted them; else None."""
        data, spec = self._sizes.data_of(run), run.task.model_dump(mode="json")
        return self._features.get(_data(run.key.task, spec)) or (data.train if data else None)

    def steps_of(self, run: PlannedRun) -> int | None:
        """Optimiser steps of a run; None where nobody has counted its features."""
        if run.recipe is None or run.recipe.training is None:
            return 0
        features = self.features_of(run)
        return features and total_steps(run.recipe.training, steps_per_epoch(run.recipe.training, features))

    def __getitem__(self, run: PlannedRun) -> Estimate | None:
        """The estimate for a run, None where nothing is known."""
        if run.key not in self._found:
            self._found[run.key] = self._by_records(run) or self._by_work(run)
        return self._found[run.key]

    def _by_records(self, run: PlannedRun) -> Estimate | None:
        spec = json.loads(json.dumps(run.specification))
        for basis, name in NAMES.items():
            costs = self._named[basis].get(name(spec), [])
            if not costs:
                continue
            seconds = [cost.seconds for cost in costs]
            if basis == STEPS and (steps := self.steps_of(run)) != 0:
                costs = [cost for cost in costs if cost.steps]
                if steps is None or not costs:
                    continue
                seconds = [cost.seconds / cost.steps * steps for cost in costs]
            return Estimate(mean(seconds), max(cost.memory_mb for cost in costs), basis, len(costs))
        return None

    def _stated(self, run: PlannedRun) -> float | None:
        """Seconds of a run at the stated rates, without its start; None where its work is not known."""
        try:
            work = operations(run, self._sizes)
        except UserError:  # its schedule cannot be, as whoever makes it is told
            return None
        return None if work is None else expected_seconds(work, run, self._on_gpu)

    def _by_work(self, run: PlannedRun) -> Estimate | None:
        stated = self._stated(run)
        if stated is None:
            return None
        memory = sum(memory_parts(run, self._sizes).values())
        # Runs of another stage differ in more than their operations, such as the size of a batch.
        paces = self._pace.get(run.key.stage) or [pace for of_stage in self._pace.values() for pace in of_stage]
        if paces:
            return Estimate(START + stated * median(paces), memory, WORK, len(paces))
        return Estimate(START + stated, memory, RATE)


def _cost(path: Path) -> Cost | None:
    """What the run of a record took; None if it cannot be read, which is told to those who need it."""
    try:
        content = path.read_bytes()
        record = json.loads(content)
        costs, spec = record["costs"], record["spec"]
        return Cost(
            {basis: name(spec) for basis, name in NAMES.items()},
            _data(spec["key"]["task"], spec["task"]),
            record["spec_hash"],
            record["code_hash"],
            record["inputs"],
            content_hash(content),
            max(run_seconds(record["wall_time_seconds"], costs), _job_seconds(path)),
            record["peak_memory_mb"],
            record["environment"].get("gpu") is not None,
            costs.get("optimizer_steps", 0),
            record["data"].get("features", {}).get("train"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _job_seconds(record: Path) -> float:
    """What the job that made a run took, imports and mirror included; 0 if it was made by hand."""
    of_run = record.parent.relative_to(folders.RESULTS / "runs")
    path = folders.RESULTS / "benchmarks" / of_run.with_name(f"{of_run.name}.jsonl")
    try:
        if path.stat().st_mtime < record.stat().st_mtime:  # of a run before
            return 0.0
        return float(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["s"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return 0.0


def seconds_left(pending: Mapping[PlannedRun, float], cores: int, gpus: int) -> float:
    """What runs take together: as many at once as the cores and GPUs allow, each behind those that it is made from.

    Args:
        pending: seconds that each run will still take.
    """
    chains: dict[PlannedRun, float] = {}

    def chain(run: PlannedRun) -> float:
        if run not in chains:
            chains[run] = pending.get(run, 0.0) + max(map(chain, run.made_from), default=0.0)
        return chains[run]

    shared = sum(seconds / _at_once(run, cores, gpus) for run, seconds in pending.items())
    return max(shared, max(map(chain, pending), default=0.0))


def _at_once(run: PlannedRun, cores: int, gpus: int) -> int:
    """How many runs like this one are made at a time."""
    if run.stage.exclusive:
        return 1
    slots = max(cores // cpus_of(run), 1)
    return min(slots, gpus) if gpus and run.stage.trains else slots


def in_words(seconds: float) -> str:
    """A duration for people: two digits at most of the largest unit that it has one of."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
