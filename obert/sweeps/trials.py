"""A sweep's trials in Optuna: one study that any number of workers share, in a journal file or a database.

Trials are numbered by the storage. Those that are not a second attempt of another have ranks, from 0: a grid's point is
that of the rank, and TPE is seeded with the sweep's seed and the trial's number, so that no two workers, and no two
sessions of one, ever draw the same. A trial whose worker died is failed and, after all others, attempted again with the
same values.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from obert.foundation.errors import UserError
from obert.foundation.locks import locked
from obert.sweeps.schema import Parameter, Value
from obert.sweeps.search import Search

ATTEMPTS = 5  # a trial that its worker does not survive so often is left
STARTUP = 5  # of TPE, whose first trials are random; Optuna's own 10 are most of a small sweep
POLL_SECONDS = 2.0
HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 90  # of workers on a database
# By trial: the number of its first attempt, which attempt it is, its worker, the user's mistake, one too many.
ROOT, ATTEMPT, WORKER, ERROR, SURPLUS = "root", "attempt", "worker", "error", "surplus"
RUNS = "runs"  # of a level, by its place
Runs = list[dict[str, Any]]
Evaluate = Callable[[dict[str, Value]], Iterator[Runs]]


@dataclass(frozen=True)
class Outcome:
    """A trial that is over.

    Attributes:
        objective: mean score of its runs, None where it did not get through all of them.
        runs: what `Evaluate` gave for the runs that it got through.
        error: the user's mistake that ended it.
    """

    number: int
    state: Literal["complete", "stopped early", "failed"]
    parameters: dict[str, Value]
    objective: float | None
    runs: Runs
    error: str


class _Surplus(Exception):
    """Two workers without a lock in common asked for the last trial at once."""


class _Point(BaseSampler):
    """Gives the values of one point."""

    def __init__(self, values: dict[str, Value]):
        self.values = values

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.values[param_name]


class Trials:
    """The trials of a sweep, as one worker sees them.

    Args:
        worker: its number; no two workers of a file system have the same.

    Raises:
        UserError: the storage cannot be used, or there is such a worker already.
    """

    def __init__(self, search: Search, worker: int):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search = search
        self.worker = worker
        self._claim = search.folder / "claim.lock"
        with locked(self._claim):
            self.study = self._open()
        self._life = ExitStack()
        try:
            self._life.enter_context(locked(self._lock_of(worker), wait=False))
        except BlockingIOError:
            raise UserError(
                f"worker {worker} of sweep '{search.sweep.name}' is running already: choose another --worker"
            ) from None

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_) -> None:
        self._life.close()

    def _open(self) -> optuna.Study:
        sweep = self.search.sweep
        pruner = MedianPruner() if sweep.stop_early else NopPruner()
        name = f"{sweep.name}-{self.search.identity}"
        return optuna.create_study(
            storage=_storage(self.search), study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
        )

    def _lock_of(self, worker: int) -> Path:
        return self.search.folder / "workers" / f"{worker}.lock"

    def work(self, evaluate: Evaluate) -> None:
        """Run trials until there are none left, other workers' included.

        Args:
            evaluate: called with a trial's values, gives its runs of one level after another, each with a `score`.

        Raises:
            Exception: whatever `evaluate` raises but a UserError, which fails the trial alone.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of heartbeats
            while self._work_on(evaluate):
                pass

    def _work_on(self, evaluate: Evaluate) -> bool:
        """Run a trial, or wait for others' to end. Returns False if there are none left."""
        with ExitStack() as claim:
            claim.enter_context(locked(self._claim))
            self._fail_dead()
            is_fresh = len(self._ranks()) < self.search.budget
            if not is_fresh:  # so that a trial which kills its workers keeps no other from being done
                self._attempt_again()
            states = [trial.state for trial in self._trials()]
            if is_fresh or TrialState.WAITING in states:
                run = partial(self._run, claim=claim, evaluate=evaluate)
                self.study.optimize(run, n_trials=1, catch=(UserError, _Surplus))
                return True
        if TrialState.RUNNING in states:
            time.sleep(POLL_SECONDS)
        return TrialState.RUNNING in states

    def _run(self, trial: Trial, claim: ExitStack, evaluate: Evaluate) -> float:
        trial.set_user_attr(WORKER, self.worker)
        values = self._values(trial)
        claim.close()
        scores: list[float] = []
        try:
            for step, runs in enumerate(evaluate(values)):
                trial.set_user_attr(f"{RUNS}{step}", runs)
                level = [run["score"] for run in runs]
                scores += level
                trial.report(fmean(level), step)
                if trial.should_prune():
                    print(f"trial {trial.number} with {values} is stopped early: {fmean(level):.2f}", flush=True)
                    raise optuna.TrialPruned
        except UserError as error:
            print(f"trial {trial.number} with {values} failed: {error}", flush=True)
            trial.set_user_attr(ERROR, str(error))
            raise
        print(f"trial {trial.number} with {values}: {fmean(scores):.2f}", flush=True)
        return fmean(scores)

    def _values(self, trial: Trial) -> dict[str, Value]:
        """A trial's values, drawn now unless it is a second attempt."""
        sweep, search = self.search.sweep, self.search
        rank = self._ranks().index(trial.user_attrs.get(ROOT, trial.number))
        if rank >= search.budget:
            trial.set_user_attr(SURPLUS, True)
            raise _Surplus
        if sweep.sampler == "grid":
            self.study.sampler = _Point(search.points[rank])
        else:
            self.study.sampler = TPESampler(seed=sweep.seed + trial.number, n_startup_trials=STARTUP)
        values: dict[str, Value] = {}
        for key, parameter in sweep.space.items():
            if parameter.is_tried(values):
                values[key] = _suggest(trial, key, parameter)
        return values

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _ranks(self) -> list[int]:
        """Numbers of the trials that are no second attempt, by rank."""
        return [trial.number for trial in self._trials() if ROOT not in trial.user_attrs]

    def _fail_dead(self) -> None:
        """Fail the trials of dead workers."""
        if self.search.sweep.storage is not None:
            optuna.storages.fail_stale_trials(self.study)
        else:
            for trial in self._trials():
                if trial.state == TrialState.RUNNING and self._is_lost(trial):
                    self.study.tell(trial.number, state=TrialState.FAIL)

    def _attempt_again(self) -> None:
        """Queue each trial that was lost with its worker, with its values."""
        attempts = {_attempt(trial) for trial in self._trials()}
        for trial in self._trials():
            root, attempt = _attempt(trial)
            if _has_died(trial) and attempt < ATTEMPTS and (root, attempt + 1) not in attempts:
                self.study.add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs={ROOT: root, ATTEMPT: attempt + 1},
                    )
                )

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether a running trial's worker is dead. One that has not given its number yet holds the claim."""
        worker = trial.user_attrs.get(WORKER, self.worker)
        if worker == self.worker:  # which runs no trial now: it was another process of the same number
            return True
        try:
            with locked(self._lock_of(worker), wait=False):
                return True
        except BlockingIOError:
            return False

    def outcomes(self) -> list[Outcome]:
        """The trials that are over, by number, without attempts that were made again."""
        states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped early", TrialState.FAIL: "failed"}
        found = []
        for trial in self._trials():
            attrs = trial.user_attrs
            is_last = not _has_died(trial) or _attempt(trial)[1] == ATTEMPTS
            if trial.state not in states or not is_last or SURPLUS in attrs:
                continue
            runs = [run for step in range(len(self.search.levels)) for run in attrs.get(f"{RUNS}{step}", [])]
            died = f"its worker died {ATTEMPTS} times" if _has_died(trial) else ""
            objective = trial.value if trial.state == TrialState.COMPLETE else None
            values = {key: trial.params[key] for key in self.search.sweep.space if key in trial.params}
            found.append(Outcome(trial.number, states[trial.state], values, objective, runs, attrs.get(ERROR, died)))
        return found

    def importances(self) -> dict[str, float]:
        """How much each key matters for being among the best trials (PED-ANOVA), adding up to 1; empty if unknown."""
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if len(complete) < 4 or len({trial.value for trial in complete}) == 1:
            return {}
        return optuna.importance.get_param_importances(self.study)


def _storage(search: Search) -> optuna.storages.BaseStorage:
    from optuna.storages import RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    url = search.sweep.storage
    if url is None:
        return JournalStorage(JournalFileBackend(str(search.folder / "journal.log")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)
    except (ImportError, SQLAlchemyError) as error:
        raise UserError(
            f"{search.path}, storage: the database cannot be used: {str(error).splitlines()[0]}. Is the server running "
            "and the URL right? PostgreSQL needs `pip install 'obert[postgresql]'` and postgresql+psycopg://host/name."
        ) from None


def _suggest(trial: Trial, key: str, parameter: Parameter) -> Value:
    if parameter.values:
        return trial.suggest_categorical(key, parameter.values)
    if parameter.is_integer:
        return trial.suggest_int(key, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _attempt(trial: FrozenTrial) -> tuple[int, int]:
    """The number of its first attempt, and which attempt it is."""
    return trial.user_attrs.get(ROOT, trial.number), trial.user_attrs.get(ATTEMPT, 1)


def _has_died(trial: FrozenTrial) -> bool:
    """Whether a trial failed for no fault of its values."""
    return trial.state == TrialState.FAIL and not {ERROR, SURPLUS} & set(trial.user_attrs)
