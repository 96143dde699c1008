"""What Blalock et al. 2020 recommend for experiments on pruning, filled in for this one from its plan and records.

Source: "What is the State of Neural Network Pruning?" (arXiv 2003.03033) and its code, ShrinkBench. The abstract and
the code were at hand, not the paper's text: the lines here are this project's list, and nothing is quoted.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from obert.experiment.keys import RunKey
from obert.tables import Note, Results, Table
from obert.tables._engines import SPEEDUP, engines_of, size_and_speed
from obert.tables._measured import metric_of
from obert.tables._planned import as_planned
from obert.tables._ranking import blocks
from obert.tables._ratios import compression_ratio, pruned_groups, theoretical_speedup
from obert.tables._scopes import pruning_recipe

POINTS = 5  # of a curve
BASELINES = tuple((method, how) for method in ("random", "magnitude") for how in ("global", "uniform"))
WORDS = {"global": "global", "uniform": "by layer"}
VERDICTS = ("not met", "in part", "met")
MISSED, PARTLY, MET = VERDICTS
COLUMNS = ("recommendation", "answer", "found")


@dataclass(frozen=True)
class Answer:
    """How far a recommendation is met: by so many of some things, and in words."""

    met: int
    of: int
    found: str

    @property
    def verdict(self) -> str:
        return MISSED if not self.met else MET if self.met == self.of else PARTLY


class Checklist(Table):
    """A row a recommendation: whether it is met, and what was found."""

    title = "Checklist of an experiment on pruning"
    caption = (
        "After Blalock et al. 2020, What is the State of Neural Network Pruning? (arXiv 2003.03033), and ShrinkBench, "
        "filled in from this experiment's plan and records. The wording and the list are this project's. A "
        "compression ratio is of the weights in scope here; that of the whole model stands in the table of "
        "compression ratios and speed-ups."
    )

    section = "Leaderboards"

    def build(self, results: Results) -> pd.DataFrame:
        if not pruned_groups(results):
            return pd.DataFrame(columns=list(COLUMNS))
        complete = as_planned(results)
        rows = []
        for name, check in CHECKS.items():
            answer, then = check(results), check(complete)
            rows.append((name, answer.verdict, answer.found + _once_complete(answer, then)))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def notes(self, results: Results) -> tuple[Note, ...]:
        missed = [row.recommendation for row in self.build(results).itertuples() if row.answer != MET]
        if not missed:
            return () if pruned_groups(results) else (Note("Nothing is pruned, so there is nothing to check."),)
        return (Note(f"Not met, or in part: {'; '.join(missed)}."),)


def _once_complete(answer: Answer, then: Answer) -> str:
    """What the runs that are planned, but missing, would change."""
    is_better = VERDICTS.index(then.verdict) > VERDICTS.index(answer.verdict)
    return f" Once all planned runs are made: {then.verdict}." if is_better else ""


def same_start(results: Results) -> Answer:
    """Whether methods that are compared with each other start from one model."""
    compared = [block for task in results.tasks for block in blocks(_of(results, task)) if len(block) > 1]
    same = 0
    for block in compared:
        by_seed: dict[int, set] = {}
        for key in (record.key for group in block for record in group.records):
            by_seed.setdefault(key.seed, set()).add(_start(results, key))
        same += all(len(starts) == 1 for starts in by_seed.values())
    if not compared:
        return Answer(0, 1, "No two methods are compared: no recipe and sparsity has several.")
    return Answer(same, len(compared), f"{same} of {len(compared)} comparisons of methods start from one model.")


def _of(results: Results, task: str) -> list:
    return [group for group in pruned_groups(results) if group.key.task == task]


def _start(results: Results, key: RunKey) -> object:
    """The dense model that a run's was before any pruning: that of a run, or the one that was loaded."""
    dense = next((run for run in results.history(key) if run.method is None), None)
    return dense or json.dumps(results.specification(key).get("model") or results.by_key[key].model.get("source"))


def operating_points(results: Results) -> Answer:
    """Whether each curve has enough points."""
    curves: dict[tuple, set[float]] = {}
    for group in pruned_groups(results):
        curves.setdefault((group.key.task, group.key.recipe, group.method), set()).add(group.sparsity)
    long = sum(len(points) >= POINTS for points in curves.values())
    every = sorted(set().union(*curves.values()))
    most = max(map(len, curves.values()), default=0)
    span = f"compression ratios {_ratio(every[0])} to {_ratio(every[-1])}" if every else "no sparsity"
    found = (
        f"{long} of {len(curves)} curves (task, recipe, method) have {POINTS} points or more; the longest has {most}"
    )
    return Answer(long, len(curves), f"{found}. Over all: {span}.")


def _ratio(sparsity: float) -> str:
    return f"{1 / (1 - sparsity):.1f}" if sparsity < 1 else "infinity"


def ratios_and_speed(results: Results) -> Answer:
    """Whether each pruned model has a compression ratio, a theoretical and a measured speed-up."""
    engines = engines_of(results)
    every = pruned_groups(results)
    ratio = [not math.isnan(compression_ratio(results, group)) for group in every]
    theory = [not math.isnan(theoretical_speedup(results, group)) for group in every]
    timed = [_is_timed(size_and_speed(results, group.key, engines), engines) for group in every]
    found = (
        f"Of {len(every)} pruned models, {sum(ratio)} have a compression ratio, {sum(theory)} a theoretical and "
        f"{sum(timed)} a measured speed-up."
    )
    counts = [sum(values) for values in zip(ratio, theory, timed, strict=True)]
    return Answer(sum(counts), 3 * len(every), found)


def _is_timed(found: dict[str, float], engines: list[str]) -> bool:
    return not all(math.isnan(found[f"{engine}{SPEEDUP}"]) for engine in engines)


def baselines(results: Results) -> Answer:
    """Whether each task has random and magnitude pruning, compared over the model and by layer."""
    present, absent = 0, []
    tasks = [task for task in results.tasks if _of(results, task)]
    for task in tasks:
        found = {(g.method, pruning_recipe(results, g.key).get("distribution", "global")) for g in _of(results, task)}
        lacking = [f"{method} {WORDS[how]}" for method, how in BASELINES if (method, how) not in found]
        present += len(BASELINES) - len(lacking)
        absent += [f"{task}: {', '.join(lacking)}"] if lacking else []
    found = f"Missing: {'; '.join(absent)}." if absent else "Random and magnitude, global and by layer, on every task."
    return Answer(present, len(BASELINES) * len(tasks), found)


def seeds(results: Results) -> Answer:
    """Whether each row is a mean over seeds with its deviation."""
    counts = [len(group.records) for group in pruned_groups(results)]
    several = sum(count > 1 for count in counts)
    found = f"{several} of {len(counts)} pruned models have several seeds, which gives a mean and a deviation"
    return Answer(several, len(counts), f"{found}; seeds: {min(counts, default=0)} to {max(counts, default=0)}.")


def metrics(results: Results) -> Answer:
    """Whether each task's metric has its exact name and the number of examples it is over."""
    named = []
    tasks = [task for task in results.tasks if _of(results, task)]
    for task in tasks:
        metric = metric_of(results, task)
        scores = [r.metrics[metric] for group in _of(results, task) for r in group.records if metric in r.metrics]
        if scores:
            counts = sorted({score.count for score in scores})
            named.append(f"{task}: {metric} over {', '.join(f'{count:,}' for count in counts)} examples")
    return Answer(len(named), len(tasks), f"{'; '.join(named) or 'No task has a score'}.")


CHECKS: dict[str, Callable[[Results], Answer]] = {
    "Methods that are compared start from the same model": same_start,
    f"At least {POINTS} operating points over the range, for each method": operating_points,
    "Compression ratio and theoretical speed-up beside the measured one": ratios_and_speed,
    "Random and magnitude pruning as baselines, global and by layer": baselines,
    "Mean and standard deviation over seeds": seeds,
    "Metrics named exactly": metrics,
}
