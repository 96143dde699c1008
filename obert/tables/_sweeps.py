"""What is drawn from a sweep's trials: scores over sparsity by one parameter, the history, and what mattered."""

from typing import ClassVar

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from obert.statistics.formatting import format_setting
from obert.tables import Note, Results, Table
from obert.tables._figures import MARKERS, STYLE, shades
from obert.tables._panels import empty_figure, panels, score_axes, some_panels

OF_SWEEP = ("experiment", "model", "base", "held_out")
OF_TRIAL = ("trial", "state", "objective")
OF_RUN = ("task", "method", "sparsity", "seed", "metric", "score", "count", "seconds", "dense", "error")
COLUMNS = ("sweep", "task", "metric", "symbol", "value", "sparsity", "score", "runs", "examples", "dense", "fixed")
CAPTION = (
    "Scores are measured on training examples that were held out, not on validation examples; the models were trained "
    "without them. The other searched parameters have the values of the best trial. The dashed line is the dense model "
    "on the same examples. Kurtic et al. 2022 show this ablation in Figure {number} (BERT-base, one-shot, SQuAD's "
    "development set); the scale here is given below."
)


def searched(trials: pd.DataFrame) -> list[str]:
    """The keys that a sweep searched, which are columns of its trials."""
    return [name for name in trials.columns if name not in (*OF_SWEEP, *OF_TRIAL, *OF_RUN)]


class Ablation(Table):
    """A line a value of one parameter of the method, a panel a sweep and task.

    Attributes:
        symbols: by parameter of which sweeps are drawn: of any method, or as `methods.<method>.<parameter>` of one.
    """

    paper = "obert"
    section = "Published and measured"
    symbols: ClassVar[dict[str, str]]

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for sweep, trials in results.sweeps.items():
            key = self._key(trials)
            if key is None:
                continue
            fixed = best_values(trials, key)
            chosen = trials[trials["state"] == "complete"]
            for name, value in fixed.items():
                chosen = chosen[chosen[name] == value]
            text = ", ".join(f"{name} {value}" for name, value in fixed.items())
            symbol = self._symbol(key)
            for (task, value, sparsity), runs in chosen.groupby(["task", key, "sparsity"]):
                first = runs.iloc[0]
                means = (runs["score"].mean(), len(runs), first["count"], runs["dense"].mean())
                rows.append((sweep, task, first["metric"], symbol, value, sparsity, *means, text))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _key(self, trials: pd.DataFrame) -> str | None:
        """The column of the parameter, if the sweep tried several values of it."""
        names = [name for name in searched(trials) if self._symbol(name) is not None]
        if not names:
            return None
        tried = trials.loc[trials["state"] == "complete", names[0]]
        return names[0] if len(tried.unique()) > 1 else None

    def _symbol(self, key: str) -> str | None:
        return self.symbols.get(key) or self.symbols.get(key.rpartition(".")[2])

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = []
        for sweep, trials in results.sweeps.items():
            if trials.empty:
                command = f"python -m obert sweep --config configs/sweeps/{sweep}.yaml"
                notes.append(Note(f"The sweep {sweep} has no trials yet. To run it:", (command,)))
            elif (key := self._key(trials)) is not None:
                notes.append(Note(scale_of(sweep, trials, best_values(trials, key))))
        listing = "list one, such as ablation of configs/sweeps, under 'sweeps' in its file"
        return tuple(notes) or (Note(f"No sweep of this experiment varies {next(iter(self.symbols))}; {listing}."),)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            parts = list(content.groupby(["sweep", "task"], sort=False))
            figure, axes = some_panels(len(parts), columns=3)
            for axis, ((sweep, task), part) in zip(axes, parts, strict=True):
                axis.axhline(part["dense"].iloc[0], color="0.35", linestyle="--", linewidth=1.2, label="dense")
                lines = list(part.groupby("value", sort=True))
                for index, (colour, (value, line)) in enumerate(zip(shades(len(lines)), lines, strict=True)):
                    look = {"color": colour, "marker": MARKERS[index % len(MARKERS)]}
                    label = f"{part['symbol'].iloc[0]} = {format_setting(value)}"
                    axis.plot(100 * line["sparsity"], line["score"], label=label, **look)
                axis.set_title(f"{sweep}, {task}")
                axis.set_xticks(sorted(100 * part["sparsity"].unique()))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.set_xlabel("sparsity of the encoder (%)")
                axis.set_ylabel(f"{part['metric'].iloc[0]} (%), held-out training data")
                axis.legend(fontsize=8)
                score_axes([axis])
        return figure


def best_values(trials: pd.DataFrame, *keys: str) -> dict[str, object]:
    """What the best trial has for the searched keys but these."""
    best = trials.loc[trials["objective"].idxmax()]
    return {name: best[name] for name in searched(trials) if name not in keys and pd.notna(best[name])}


def scale_of(sweep: str, trials: pd.DataFrame, fixed: dict[str, object]) -> str:
    """Model, recipe, seeds and examples of a sweep, and the values of the keys that are fixed."""
    first = trials.iloc[0]
    counts = trials.dropna(subset="task").groupby("task", sort=False)["count"].first()
    sizes = ", ".join(f"{task} {count:,.0f}" for task, count in counts.items())
    seeds = trials["seed"].nunique()
    others = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in fixed.items())
    return (
        f"Sweep {sweep}: {first['model']}, recipe {first['base']}, {seeds} seed{'' if seeds == 1 else 's'}; examples "
        f"held out ({100 * first['held_out']:g} % of those for training): {sizes}{'; ' if others else ''}{others}."
    )


def draw_history(trials: pd.DataFrame) -> Figure:
    """The objective of every complete trial, and the best so far."""
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, 1, width=6)
        by_trial = trials.drop_duplicates("trial").sort_values("trial")
        complete = by_trial[by_trial["state"] == "complete"]
        axis = axes[0][0]
        axis.plot(complete["trial"], complete["objective"], linestyle="none", marker="o", label="trial")
        axis.step(complete["trial"], complete["objective"].cummax(), where="post", color="C1", label="best so far")
        counts = by_trial["state"].value_counts()
        axis.set_title(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
        axis.set_xlabel("trial")
        axis.set_ylabel("mean score on held-out training data (%)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=8)
    return figure


def draw_importances(importances: dict[str, float]) -> Figure:
    """How much each key matters for being among the best trials."""
    with mpl.rc_context(STYLE):
        figure, axes = panels(1, 1, width=6, height=1.2 + 0.4 * len(importances))
        axis = axes[0][0]
        names = list(reversed(importances))
        axis.barh(names, [importances[name] for name in names])
        axis.set_xlabel("importance (PED-ANOVA)")
    return figure
