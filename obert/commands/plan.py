"""What an experiment plans, in plain numbers: runs by stage, what they will take, and schedules with a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from tabulate import tabulate

from obert.commands import estimate, power
from obert.experiment.estimates import Estimates
from obert.experiment.plan import Plan, PlannedRun
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path, check_place
from obert.foundation.nodes import this_machine
from obert.training.schedules import check_steps, linear_with_rewinds, pruning_events, steps_per_epoch, total_steps

T = TypeVar("T")
DASH = "\N{EN DASH}"  # as in tables, whose module takes pandas
WIDTH = 80  # of text
COLUMNS, ROWS = 60, 3  # of a picture
BLOCKS = " ▁▂▃▄▅▆▇█"  # by height in eighths of a line
EIGHTHS = len(BLOCKS) - 1
FINE = 1000  # steps an epoch, where the real number is not known
FIGURES = (".svg", ".png")
UNCOUNTED = "Steps are known when a task's training features are counted, by `obert check` or by a finished run."
STAGE_COLUMNS = ("stage", "runs", "done", "tasks", "recipes", "methods", "sparsities", "seeds")
SCHEDULE_COLUMNS = ("task", "target %", "cycles", "epochs", "steps", "window", "events", "first %")


@dataclass(frozen=True)
class Timetable:
    """Training and pruning of a run, and of those that differ from it in method and seed alone.

    Attributes:
        features: training features, where somebody has counted them.
        methods: whose it is, where other methods of the recipe have another one; empty where it is all methods'.
    """

    run: PlannedRun
    features: int | None
    methods: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float | None:
        """The target, None for what is not pruned gradually."""
        return self.run.key.sparsity if self.run.recipe.schedule else None

    @property
    def schedule(self) -> tuple:
        """What its picture depends on."""
        recipe = self.run.recipe
        by_steps = recipe.schedule is not None and recipe.schedule.every_steps
        numbers = (recipe.training.epochs, recipe.training.learning_rate, recipe.schedule, self.sparsity)
        return (*numbers, self.epoch_steps if by_steps else None)

    @property
    def cycles(self) -> int:
        """How often the learning rate starts, or, of a scaled recipe, the cycles that it is resolved to."""
        recipe = self.run.recipe
        if recipe.scaling is not None:
            return recipe.scaling.cycles_at(self.run.key.sparsity)
        return len(recipe.training.learning_rate.rewind_epochs) + 1

    @cached_property
    def epoch_steps(self) -> int | None:
        """Optimiser steps of an epoch, where the number of features is known."""
        return None if self.features is None else steps_per_epoch(self.run.recipe.training, self.features)

    @property
    def drawn_steps(self) -> int:
        """Steps of an epoch to draw with."""
        return self.epoch_steps or FINE

    @cached_property
    def events(self) -> dict[int, float] | None:
        """Sparsity by step, of `drawn_steps` an epoch; None where events go by steps, and steps are not known.

        Raises:
            UserError: two events fall on one step, or a schedule comes to nothing with so few.
        """
        schedule = self.run.recipe.schedule
        if schedule.every_steps and self.epoch_steps is None:
            return None
        try:
            events = pruning_events(schedule, self.drawn_steps, self.sparsity)
            if self.features is not None:
                check_steps(self.run.recipe.training, self.features, events)
            return events
        except UserError as error:
            key = self.run.key
            raise UserError(f"recipe {key.recipe}, task {key.task}, sparsity {self.sparsity:g}: {error}") from None

    def sampled(self, count: int) -> list[tuple[float, float, float]]:
        """Epoch, sparsity and learning rate at `count` moments, evenly spread over training."""
        training = self.run.recipe.training
        total = total_steps(training, self.drawn_steps)
        steps = [int((i + 0.5) * total / count) for i in range(count)]
        events = self.events or {}
        return [
            (
                step / self.drawn_steps,
                max((sparsity for at, sparsity in events.items() if at <= step), default=0.0),
                linear_with_rewinds(step, total, self.drawn_steps, training.learning_rate),
            )
            for step in steps
        ]


def run(plan: Plan, chosen: dict[str, Any], figure: Path | None = None, cores: int | None = None) -> str:
    """The planned runs that have the `chosen` task, recipe and so on, as text.

    Args:
        figure: an SVG or PNG file to draw gradual schedules to.
        cores: that runs share, this machine's by default.

    Raises:
        UserError: no run is chosen, events that fall on one step, or a figure of nothing, of another kind, or where it
            cannot be written.
    """
    if figure is not None and figure.suffix not in FIGURES:
        raise UserError(f"--figure {figure}: a figure is written as {' or '.join(FIGURES)}, by the file's ending")
    if figure is not None:
        check_place(figure, "--figure")
    runs, machine = plan.chosen(chosen), this_machine()
    estimates = Estimates(plan, machine.gpus > 0)
    parts = [f"experiment {plan.experiment.name}: {_counted(len(runs), 'run')}", _stages(runs, estimates)]
    drawn = []
    trained = [run for run in runs if run.recipe is not None]
    for same in _grouped(trained, lambda run: (run.key.stage, run.key.recipe)):
        tables = list(_timetables([run for run in same if not run.recipe.is_one_shot], estimates))
        parts.append(_recipe(same, tables))
        drawn += [table for table in tables if table.sparsity is not None and table.events]
    parts[2:2] = filter(None, (estimate.run(estimates, runs, machine, cores), power.run(runs)))
    if any(estimates.features_of(run) is None for run in trained):
        parts.append(_wrapped(UNCOUNTED))
    if figure is not None:
        parts.append(_save(figure, drawn))
    return "\n\n".join(parts)


def _timetables(runs: Sequence[PlannedRun], estimates: Estimates) -> Iterator[Timetable]:
    """Of a recipe, one for each task and target, or for each of its schedules."""
    tables = [Timetable(run, estimates.features_of(run)) for run in runs]
    for same in _grouped(tables, lambda table: (table.run.key.task, table.sparsity)):
        groups = _grouped(same, lambda table: table.run.recipe.schedule)
        for group in groups:
            methods = _distinct(table.run.key.method for table in group) if len(groups) > 1 else ()
            yield replace(group[0], methods=tuple(methods))


def _distinct(values: Iterable[Any]) -> list[Any]:
    return [value for value in dict.fromkeys(values) if value is not None]


def _grouped(items: Iterable[T], by: Callable[[T], Any]) -> list[list[T]]:
    """Items that have the same `by`, in the order of the first of each."""
    found: dict[Any, list[T]] = {}
    for item in items:
        found.setdefault(by(item), []).append(item)
    return list(found.values())


def _stages(runs: Sequence[PlannedRun], estimates: Estimates) -> str:
    rows = []
    for same in _grouped(runs, lambda run: run.key.stage):
        keys = [run.key for run in same]
        done = sum(map(estimates.is_done, same))
        counts = [len(_distinct(getattr(k, of) for k in keys)) for of in ("task", "recipe", "method", "sparsity")]
        rows.append((keys[0].stage, len(keys), done, *(count or DASH for count in counts), len({k.seed for k in keys})))
    return _table(rows, STAGE_COLUMNS)


def _table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    aligned = ("left", *["right"] * (len(columns) - 1))
    return tabulate(rows, headers=columns, disable_numparse=True, colalign=aligned)


def _recipe(runs: Sequence[PlannedRun], tables: Sequence[Timetable]) -> str:
    """A recipe's runs, a table with a row for each task and target, and a picture for each schedule."""
    first = runs[0]
    named = [_counted(len(runs), "run")]
    for what, name in (("methods", "method"), ("tasks", "task"), ("seeds", "seed")):
        if values := _distinct(getattr(run.key, name) for run in runs):
            named.append(f"{what} {', '.join(map(str, values))}")
    lines = [_wrapped(f"{first.key.stage}, {first.key.recipe}: {'; '.join(named)}")]
    if not tables:
        sparsities = ", ".join(f"{100 * s:g} %" for s in _distinct(run.key.sparsity for run in runs))
        how = f"in one shot, without training, to {sparsities}" if sparsities else "as it is given, without training"
        return "\n".join([*lines, f"  {how}"])
    if first.recipe.scaling is not None:
        lines.append(_wrapped(f"  scaled: {_scaling(first)}"))
    lines += ["", textwrap.indent(_table([_row(table) for table in tables], SCHEDULE_COLUMNS), "  ")]
    for same in _grouped(tables, lambda table: table.schedule):
        lines += ["", *_schedule(same)]
    return "\n".join(lines)


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ")


def _scaling(run: PlannedRun) -> str:
    scaling = run.recipe.scaling
    ((rule, value),) = scaling.cycles.model_dump().items()
    equal = scaling.equal_compute
    control = f", the {equal.length} of {', '.join(f'{100 * s:g} %' for s in equal.of)} for each" if equal else ""
    return (
        f"cycles of {_counted(scaling.unit_epochs, 'epoch')}, their number {rule} ({value}){control}; "
        f"{scaling.dense_cycles:g} dense and {scaling.recovery_cycles:g} of recovery; "
        f"{_counted(scaling.events_per_cycle, 'event')} a cycle"
    )


def _row(table: Timetable) -> tuple[str, ...]:
    training, schedule = table.run.recipe.training, table.run.recipe.schedule
    steps = DASH if table.epoch_steps is None else f"{total_steps(training, table.epoch_steps):,}"
    trained = (str(table.cycles), f"{training.epochs:g}", steps)
    if schedule is None:
        return (table.run.key.task, DASH, *trained, DASH, DASH, DASH)
    window = f"{schedule.start_epoch:g} to {schedule.end_epoch:g}"
    events = DASH if table.events is None else str(len(table.events))
    target, first = f"{100 * table.sparsity:g}", f"{100 * schedule.initial_sparsity:g}"
    target += f" ({', '.join(table.methods)})" if table.methods else ""
    return (table.run.key.task, target, *trained, window, events, first)


def _schedule(same: Sequence[Timetable]) -> list[str]:
    """The learning rate in words and, of a gradual recipe, sparsity and learning rate as a picture."""
    table = same[0]
    tasks = ", ".join(each.run.key.task for each in same)
    target = "" if table.sparsity is None else f"{100 * table.sparsity:g} %, "
    rate = table.run.recipe.training.learning_rate
    finals = rate.final if isinstance(rate.final, tuple) else (rate.final,)
    said = f"learning rate {rate.initial:g} to {', '.join(f'{final:g}' for final in finals)}"
    said += f", {_counted(rate.warmup_epochs, 'epoch')} of warm-up" if rate.warmup_epochs else ""
    said += f", constant to epoch {rate.constant_until_epoch:g}" if rate.constant_until_epoch else ""
    said += f", anew at {_epochs(rate.rewind_epochs)}" if rate.rewind_epochs else ""
    lines = _wrapped(f"  {target}{tasks}: {said}").split("\n")
    if table.sparsity is None or table.events is None:
        return lines
    moments = table.sampled(COLUMNS)
    lines += _picture("sparsity", f"{100 * table.sparsity:g} %", [m[1] / (table.sparsity or 1) for m in moments])
    lines += _picture("rate", f"{rate.initial:g}", [m[2] / rate.initial for m in moments])
    end = _counted(table.run.recipe.training.epochs, "epoch")
    return [*lines, f"{'0':>18}{end:>{COLUMNS}}"]


def _epochs(epochs: Sequence[float]) -> str:
    """In words; those that are evenly spread by the first three and the last."""
    named = [f"{epoch:g}" for epoch in epochs]
    steps = [later - earlier for earlier, later in pairwise(epochs)]
    if len(epochs) > 5 and max(steps) - min(steps) < 1e-5:
        named = [*named[:3], "...", named[-1]]
    return f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(named)}"


def _picture(name: str, top: str, shares: Sequence[float]) -> list[str]:
    """Columns of blocks, `shares` of the height; anything above 0 is seen."""
    heights = [max(round(share * ROWS * EIGHTHS), share > 0) for share in shares]
    lines = []
    for row in reversed(range(ROWS)):
        label = f"{name:>8} {top:>7} |" if row == ROWS - 1 else f"{'|':>18}"
        blocks = "".join(BLOCKS[min(max(height - row * EIGHTHS, 0), EIGHTHS)] for height in heights)
        lines.append(f"{label}{blocks}".rstrip())
    return lines


def _save(path: Path, tables: Sequence[Timetable]) -> str:
    """Draw the schedules to a file. Returns what was done."""
    if not tables:
        raise UserError("--figure: none of the chosen runs prunes gradually, so there is nothing to draw")
    import pandas as pd

    from obert.tables import _figures
    from obert.tables._schedules import LABELS, curve_of, draw_schedules

    parts = []
    for table in tables:
        recipe, key = table.run.recipe, table.run.key
        curve = curve_of(recipe.training.epochs, recipe.training.learning_rate, table.events, table.drawn_steps)
        parts.append(curve.assign(task=key.task, recipe=key.recipe, method=key.method, target=table.sparsity))
    drawn = draw_schedules(pd.concat(parts, ignore_index=True), LABELS)
    _figures.fix_layout(drawn)
    content = _figures.save(drawn, path.suffix.removeprefix("."))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return f"figure: {path}"
