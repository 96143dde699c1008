"""How far an experiment is: which runs are done, running, failed, stopped and waiting, and the time that is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from obert.experiment import folders
from obert.experiment.estimates import RATE, Estimates, in_words, seconds_left
from obert.experiment.plan import Plan, PlannedRun
from obert.foundation.nodes import this_machine
from obert.records.progress import FAILED, INTERRUPTED, Progress, look
from obert.records.record import FILE_NAME

DONE, RUNNING, STOPPED, OUTDATED, WAITING = "done", "running", "stopped", "outdated", "waiting"
STATES = (DONE, RUNNING, FAILED, STOPPED, OUTDATED, WAITING)
MARKER = "complete.json"  # of a checkpoint, as in `training.checkpoints`, whose import takes torch
LISTED = 20  # failed or stopped runs that are named


@dataclass(frozen=True)
class State:
    """How far one run is.

    Attributes:
        name: one of `STATES`. What is outdated is there, but its specification, its code or what it is made from has
            changed since, so it is made again.
        left: seconds that it will still take; None where nothing is known.
        progress: what the process that is or was at it has told.
        steps: of its training, where they are known.
    """

    run: PlannedRun
    name: str
    left: float | None = 0.0
    progress: Progress | None = None
    steps: int | None = None

    @property
    def pace(self) -> str:
        """Step, loss and sparsity, as far as they are told."""
        told = self.progress
        if told is None or told.step is None:
            return ""
        parts = [f"step {told.step:,}" + (f" of {self.steps:,}" if self.steps else "")]
        if told.loss is not None:
            parts.append(f"loss {told.loss:.4f}")
        if told.sparsity is not None:
            parts.append(f"sparsity {told.sparsity:.3f}")
        return ", ".join(parts)

    @property
    def log(self) -> Path | None:
        """The log of the job that makes or made the run, if there is one."""
        path = folders.log_file(self.run.experiment, self.run.key)
        return path if path.is_file() else None


class Watch:
    """An experiment's runs, looked at again and again.

    Args:
        cores, gpus: that runs share, this machine's by default.
    """

    def __init__(self, plan: Plan, cores: int | None = None, gpus: int | None = None):
        machine = this_machine()
        self.plan, self.cores = plan, cores or machine.cpus
        self._gpus = machine.gpus if gpus is None else gpus
        self._estimates = Estimates(plan, self._gpus > 0)

    def look(self) -> list[State]:
        """The state of every run now."""
        self._estimates.update()
        return [self._state(run) for run in self.plan]

    def _state(self, run: PlannedRun) -> State:
        seen, expected = look(run.checkpoints), self._estimates[run]
        seconds = expected.seconds if expected else None
        if seen is not None and seen.alive:
            return State(run, RUNNING, self._left(run, seen.progress, seconds), seen.progress, self._steps(run))
        if self._estimates.is_done(run):
            return State(run, DONE)
        if seen is None:
            stopped = bool(_checkpoints(run))
            outdated = (run.folder / FILE_NAME).is_file()
            return State(run, STOPPED if stopped else OUTDATED if outdated else WAITING, seconds)
        name = FAILED if seen.progress.ended == FAILED else STOPPED
        return State(run, name, seconds, seen.progress, self._steps(run))

    def _steps(self, run: PlannedRun) -> int | None:
        return self._estimates.steps_of(run) or None

    def _left(self, run: PlannedRun, told: Progress, seconds: float | None) -> float | None:
        """By its own pace, or by what it is expected to take."""
        steps = self._steps(run)
        if steps and told.step is not None and told.step_seconds is not None:
            return max(steps - told.step, 0) * told.step_seconds
        return None if seconds is None else max(seconds - (time.time() - told.started_at.timestamp()), 0.0)

    def headline(self, states: Sequence[State]) -> str:
        """The counts and the time left, in one line."""
        counts = Counter(state.name for state in states)
        named = ", ".join(f"{counts[name]} {name}" for name in STATES[1:] if counts[name])
        line = f"{counts[DONE]} of {len(states)} runs done" + (f", {named}" if named else "")
        pending = {state.run: state.left for state in states if state.name != DONE}
        if not pending:
            return line
        known = {run: seconds for run, seconds in pending.items() if seconds is not None}
        unknown = len(pending) - len(known)
        if not known:
            return f"{line}; time left not known yet"
        left = in_words(seconds_left(known, self.cores, self._gpus))
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        aside = f", {unknown} runs of unknown length aside" if unknown else ""
        is_stated = any(found and found.basis == RATE for found in map(self._estimates.__getitem__, known))
        rough = " (a rough guess until a run is done)" if is_stated else ""
        return f"{line}; about {left} left on {cores}{rough}{aside}"


def run(plan: Plan, cores: int | None) -> str:
    """The state of an experiment, as text."""
    watch = Watch(plan, cores)
    states = watch.look()
    parts = [f"experiment {plan.experiment.name}: {watch.headline(states)}", _by_stage(states)]
    for name, describe in ((RUNNING, running), (FAILED, ended), (STOPPED, ended)):
        those = [state for state in states if state.name == name]
        if those:
            lines = [line for state in those[:LISTED] for line in describe(state)]
            more = [f"  and {len(those) - LISTED} more"] if len(those) > LISTED else []
            parts.append("\n".join([f"{name}:", *lines, *more]))
    for sweep in plan.experiment.sweeps:
        if not (folders.sweep_folder(sweep) / "trials.csv").is_file():
            parts.append(f"sweep {sweep}: not done")
    return "\n\n".join(parts)


def _by_stage(states: Sequence[State]) -> str:
    rows = []
    for stage in dict.fromkeys(state.run.key.stage for state in states):
        counts = Counter(state.name for state in states if state.run.key.stage == stage)
        rows.append((stage, *(counts[name] or "" for name in STATES)))
    return tabulate(rows, headers=("stage", *STATES))


def running(state: State) -> Iterator[str]:
    """Lines about a run that is being made."""
    since, told = state.progress.started_at.astimezone(), state.pace or "preparing, or between steps"
    for_so_long = in_words(time.time() - since.timestamp())
    left = "" if state.left is None else f", about {in_words(state.left)} left"
    yield f"  {state.run.key.path}"
    yield f"    {told}; since {since:%H:%M} ({for_so_long}) on {state.progress.host}{left}"


def ended(state: State) -> Iterator[str]:
    """Lines about a run that was ended before it was complete: why, how far it was, and where its log is."""
    told, log = state.progress, state.log
    yield f"  {state.run.key.path}"
    if told is None:
        why = "its process has gone"
    elif told.ended == INTERRUPTED:
        why = "interrupted"
    elif told.ended == FAILED:
        why = told.message
    else:
        why = f"its process on {told.host} has gone (killed, or the machine went down)"
    at = f", at {state.pace}" if state.pace else ""
    for line in f"{why}{at}".splitlines():
        yield f"    {line}"
    yield f"    log: {log}" if log else "    log: none, it was made by hand"
    steps = _checkpoints(state.run)
    yield f"    the same command goes on from step {max(steps):,}" if steps else "    the same command starts it anew"


def _checkpoints(run: PlannedRun) -> list[int]:
    """Steps of which there are checkpoints."""
    try:
        found = [path.name.rpartition("-")[2] for path in run.checkpoints.iterdir() if (path / MARKER).is_file()]
    except OSError:  # there are none, or they are being deleted
        return []
    return [int(step) for step in found if step.isdecimal()]
