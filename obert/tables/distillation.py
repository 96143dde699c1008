"""Hardness and temperature of distillation: a grid of scores, from sweeps and from runs that differ in it alone."""

import json
import math

import pandas as pd

from obert.statistics.estimates import Summary
from obert.statistics.formatting import format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._measured import Group, groups, metric_of, recipe_of, score
from obert.tables._sweeps import best_values, scale_of, searched

HARDNESS, TEMPERATURE = "distillation.hardness", "distillation.temperature"
OF_ROW = ("compared", "task", "metric", "method", "sparsity", "dense", "hardness")
COLUMNS = (*OF_ROW, "temperature", "mean", "std", "n", "chosen")
WITHOUT, CHOSEN = "without", " *"


class DistillationGrid(Table):
    """A row a hardness, a column a temperature, for each sweep or recipes, task, method and sparsity."""

    title = "Hardness and temperature of distillation"
    caption = (
        f"Mean ± sample standard deviation over n seeds, in percent; h is the hardness, T the temperature, '{WITHOUT}' "
        "the task's own loss alone. Scores of a sweep are on training examples that were held out; "
        f"{CHOSEN.strip()} marks the values with the highest mean on a task, over the sweep's sparsities and seeds. "
        "That score is the highest of many and so too high: run the recipe with other seeds. Scores of runs, which "
        "differ in distillation alone, are on validation, by which nothing is chosen."
    )
    split_by = ("compared",)

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for sweep, trials in results.sweeps.items():
            for task, runs in _grid(trials).groupby("task", sort=False):
                best = _best(runs)
                for key, cell in runs.groupby(["method", "sparsity", "hardness", "temperature"], dropna=False):
                    of_row = (f"sweep {sweep}", task, cell["metric"].iloc[0], *key[:2], cell["dense"].mean())
                    summary = Summary.of(cell["score"])
                    rows.append((*of_row, *key[2:], summary.mean, summary.std, summary.n, best in set(cell["trial"])))
        for task in results.tasks:
            rows += _of_runs(results, task)
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        columns = [_column(value) for value in content["temperature"].sort_values(na_position="first").unique()]
        shown = []
        for key, cells in content.groupby(list(OF_ROW), sort=False, dropna=False):
            of_row = dict(zip(OF_ROW, key, strict=True))
            row = {name: of_row[name] for name in ("compared", "task", "metric", "method")}
            row["sparsity %"] = format_number(100 * of_row["sparsity"], 1)
            row["dense"] = format_number(of_row["dense"])
            row["h"] = f"{of_row['hardness']:g}"
            row |= dict.fromkeys(columns, "")
            for cell in cells.itertuples():
                summary = format_summary(cell.mean, cell.std, cell.n)
                row[_column(cell.temperature)] = summary + (CHOSEN if cell.chosen else "")
            shown.append(row)
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = []
        for sweep, trials in results.sweeps.items():
            if trials.empty and "distillation" in sweep:
                command = f"python -m obert sweep --config configs/sweeps/{sweep}.yaml"
                notes.append(Note(f"The sweep {sweep} has no trials yet. To run it:", (command,)))
            grid = _grid(trials)
            if not grid.empty:
                notes.append(Note(scale_of(sweep, trials, best_values(trials, HARDNESS, TEMPERATURE))))
                notes += [Note(_choice(sweep, task, runs)) for task, runs in grid.groupby("task", sort=False)]
        listing = "list one, such as how_to_prune_distillation of configs/sweeps, under 'sweeps' in its file"
        return tuple(notes) or (Note(f"No sweep of this experiment varies hardness and temperature; {listing}."),)


def _column(temperature: float) -> str:
    return WITHOUT if math.isnan(temperature) else f"T = {temperature:g}"


def _grid(trials: pd.DataFrame) -> pd.DataFrame:
    """The runs of a sweep over hardness and temperature, other keys at the best trial's values; none of another sweep.

    A temperature at hardness 0 is NaN, whether it was tried or not.
    """
    if not {HARDNESS, TEMPERATURE} <= set(searched(trials)) or trials["objective"].isna().all():
        return pd.DataFrame(columns=["task"])
    runs = trials[trials["state"] == "complete"]
    for name, value in best_values(trials, HARDNESS, TEMPERATURE).items():
        runs = runs[runs[name] == value]
    hardness = runs[HARDNESS].astype(float)
    runs = runs.assign(hardness=hardness, temperature=runs[TEMPERATURE].astype(float).mask(hardness == 0))
    return runs.drop_duplicates(["task", "method", "sparsity", "seed", "hardness", "temperature"])


def _best(runs: pd.DataFrame) -> int:
    """The trial with the highest mean score."""
    return runs.groupby("trial")["score"].mean().idxmax()


def _choice(sweep: str, task: str, runs: pd.DataFrame) -> str:
    """What is chosen for a task, and how many of the other cells it cannot be told apart from."""
    scores = runs.pivot_table(index=["method", "sparsity", "seed"], columns="trial", values="score")
    best = _best(runs)
    values = runs[runs["trial"] == best].iloc[0]
    text = f"Sweep {sweep}, {task}: the highest mean, {scores[best].mean():.2f}, is that of h = {values['hardness']:g}"
    if values["hardness"] > 0:
        text += f", T = {values['temperature']:g}"
    without = scores[sorted(set(runs.loc[runs["hardness"] == 0, "trial"]) - {best})].mean()
    text += "".join(f"; without distillation it is {mean:.2f}" for mean in without)
    differences = scores.drop(columns=best).rsub(scores[best], axis=0)
    if len(scores) < 2:
        return f"{text}. One run a cell does not tell the cells apart."
    close = int((differences.mean() <= differences.sem()).sum())
    return (
        f"{text}. Of the other {differences.shape[1]} cells {close} are within one standard error of it (of the "
        f"difference over the same {len(scores)} seeds and sparsities)."
    )


def _of_runs(results: Results, task: str) -> list[tuple]:
    """Rows of the runs on a task that differ in distillation alone."""
    alike: dict[tuple, dict[tuple[float, float | None], Group]] = {}
    for group in groups(results, task):
        if recipe_of(group.records[0]).get("training"):
            alike.setdefault(_but_distillation(group), {}).setdefault(_values(group), group)
    rows = []
    for cells in alike.values():
        if len(cells) > 1:
            compared = f"runs {', '.join(dict.fromkeys(group.key.recipe for group in cells.values()))}"
            for (hardness, temperature), group in cells.items():
                dense = score(results.dense(task))
                of_row = (compared, task, metric_of(results, task), group.method, group.sparsity, dense, hardness)
                summary = (group.score.mean, group.score.std, group.score.n)
                rows.append((*of_row, math.nan if temperature is None else temperature, *summary, False))
    return rows


def _but_distillation(group: Group) -> tuple:
    """What the runs of a group were made with, all but distillation."""
    spec = {name: part for name, part in group.records[0].spec.items() if name != "key"}
    recipe = {name: part for name, part in recipe_of(group.records[0]).items() if name != "distillation"}
    key = group.key
    return key.stage, key.origin, key.method, key.sparsity, json.dumps(spec | {"recipe": recipe}, sort_keys=True)


def _values(group: Group) -> tuple[float, float | None]:
    """Hardness and temperature; 0 and None without distillation."""
    distillation = recipe_of(group.records[0]).get("distillation") or {"hardness": 0.0}
    hardness = distillation["hardness"]
    return hardness, distillation["temperature"] if hardness > 0 else None
