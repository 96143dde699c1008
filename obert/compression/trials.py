"""The trials of a search, one after another, until the sparsity is known or the time is up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from obert.commands import tables
from obert.compression.budget import OTHER_SHARE
from obert.compression.decision import Decision
from obert.compression.question import HELD_OUT, SEEDS
from obert.compression.runs import Runs
from obert.compression.search import MOST, between
from obert.compression.verdict import Verdict, weakness
from obert.experiment import folders
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.records.durations import run_seconds
from obert.records.finished import finished
from obert.tables import Results


def as_file(content: dict[str, Any]) -> str:
    """An experiment's file."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


class Trials:
    """The trials of a question. Called again, they are those that have been made, and then further ones.

    Args:
        folder: of the search's experiment file.
    """

    def __init__(self, decision: Decision, folder: Path):
        self.question, self.decision, self.folder = decision.question, decision, folder
        self.path = folder / "search.yaml"
        scaling = load_recipe(self.question.name).scaling  # none, if it was edited so: all trials take as long
        self.cycles = scaling.cycles_at if scaling else lambda _sparsity: 1
        self.tried: dict[float, Verdict] = {}
        self.seconds: dict[float | None, float] = {}  # of the dense model, and of each trial

    def run(self) -> float:
        """The highest sparsity that is sure to lose no more than asked.

        Raises:
            UserError: a run failed, or no sparsity is good enough.
        """
        kept, lost = 0.0, MOST
        while (sparsity := between(kept, lost)) is not None and self._has_time(sparsity, kept):
            verdict = self._try(sparsity)
            if verdict.within(self.question.max_drop):
                kept = sparsity
            else:
                lost = sparsity
        if not kept:
            lines = "\n".join(self.told())
            raise UserError(
                f"no sparsity that was tried is sure to lose at most {self.question.max_drop:g} points:\n{lines}\n"
                "Allow more points, or give more minutes or more training examples: intervals are narrower then"
            )
        return kept

    @property
    def judged(self) -> int:
        """Held-out examples that judge it."""
        return min(verdict.examples for verdict in self.tried.values())

    def told(self) -> list[str]:
        """What was tried, a line each."""
        return [f"  {100 * sparsity:g} %: {verdict}" for sparsity, verdict in sorted(self.tried.items())]

    def _has_time(self, sparsity: float, kept: float) -> bool:
        """Whether a trial, and after it the final runs, fit into the minutes; the first does."""
        minutes = self.question.minutes
        if minutes is None or len(self.seconds) < 2:
            return True
        dense = self.seconds[None] / (1 - HELD_OUT)
        final = len(SEEDS) * max(self._expected(sparsity), self._expected(kept) if kept else 0.0) / (1 - HELD_OUT)
        needed = sum(self.seconds.values()) + self._expected(sparsity) + dense + final
        return needed <= (1 - OTHER_SHARE) * 60 * minutes

    def _expected(self, sparsity: float) -> float:
        """Seconds of a trial, by the cycles of the last one."""
        last = list(self.tried)[-1]
        return self.seconds[last] * self.cycles(sparsity) / self.cycles(last)

    def _try(self, sparsity: float) -> Verdict:
        chosen = self.decision
        content = self.question.search([*self.tried, sparsity], chosen.search_examples, chosen.held_out)
        write_text(self.path, as_file(content))
        plan = Plan.load(self.path)
        runs, dense = Runs(plan), plan.teacher(self.question.task)
        self.seconds[None] = max(make(runs, dense), self.seconds.get(None, 0.0))
        [pruned] = [run for run in plan.of_stage("downstream") if run.key.sparsity == sparsity]
        self.seconds[sparsity] = make(runs, pruned)
        results = results_of(plan, self.path)
        if not self.tried and (said := weakness(results, self.question.task)):
            print(said, flush=True)
        verdict = Verdict.of(results, dense.key, [pruned.key])
        self.tried[sparsity] = verdict
        sure = "sure" if verdict.within(self.question.max_drop) else "not sure"
        print(f"{100 * sparsity:g} %: {verdict}: {sure} to be at most {self.question.max_drop:g}", flush=True)
        return verdict


def make(runs: Runs, run: PlannedRun) -> float:
    """Make a run unless it is there, say so, and return its seconds: its record knows of no imports, and no card."""
    if finished(run) is None:
        print(f"{time.strftime('%H:%M')} {run.key.path}", flush=True)
    began = time.monotonic()
    record = runs.make(run)
    return max(run_seconds(record.wall_time_seconds, record.costs), time.monotonic() - began)


def results_of(plan: Plan, config: Path) -> Results:
    """What was measured. Raises UserError for a damaged record."""
    return tables.load_results(plan, config, folders.runs_folder(plan.experiment))
