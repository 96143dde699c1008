"""Learning rate and sparsity against epoch: as training logged them, and as the oBERT paper states them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from obert.experiment.recipe import LearningRate
from obert.records.record import Record
from obert.tables import Note, Results, Table
from obert.tables._figures import DASHES, STYLE, shades, thinned
from obert.tables._measured import recipe_of
from obert.tables._panels import empty_figure, panels, shared_legend
from obert.tables._planned import as_planned, paper_notes
from obert.tables._published import Schedule
from obert.training.schedules import linear_with_rewinds, pruning_events

STEPS = 100  # an epoch, of the published curves
TARGET = 0.9  # that the paper draws
PUBLISHED = "published"
COLUMNS = ("task", "recipe", "method", "target", "epoch", "sparsity", "learning_rate")
LABELS = {"sparsity": "sparsity (%)", "learning_rate": "learning rate"}
KINDS = {
    False: "whose learning rate is rewound once or never",
    True: "whose learning rate is rewound more than once",
}
CAPTION = (
    "Published: the schedule of Figure {number} as Table 9 of Kurtic et al. 2022 states it ({epochs} epochs, learning "
    "rate of SQuAD, target of 90 %); the figure's own values are not printed. The others: training curves of this "
    "experiment's gradual runs {kind}. One run, of the first method and seed, stands for each recipe, task and target."
)


def curves_of(results: Results, belongs: Callable[[Record], bool] = lambda record: True) -> pd.DataFrame:
    """The curves of one run on a task, the first method and seed, for each recipe, task and target sparsity."""
    parts, seen = [], set()
    for record in results.of_kind(prunes=True, on_task=True):
        key = record.key
        identity = (key.recipe, key.task, key.sparsity)
        if identity in seen or not belongs(record):
            continue
        curves = results.curves(key)
        if curves is not None and not curves.empty:
            seen.add(identity)
            part = thinned(curves)[["epoch", "sparsity", "learning_rate"]]
            parts.append(part.assign(task=key.task, recipe=key.recipe, method=key.method, target=key.sparsity))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))


def curve_of(epochs: float, rate: LearningRate, events: dict[int, float], epoch_steps: int) -> pd.DataFrame:
    """Epoch, sparsity and learning rate as a schedule has them, step by step.

    Args:
        events: sparsity by the step that a pruning event precedes.
        epoch_steps: optimiser steps of an epoch.
    """
    total = max(1, round(epochs * epoch_steps))
    steps = np.arange(total)
    rates = [linear_with_rewinds(step, total, epoch_steps, rate) for step in steps]
    sparsity = pd.Series(events).reindex(steps).ffill().fillna(0).to_numpy()
    return thinned(pd.DataFrame({"epoch": steps / epoch_steps, "sparsity": sparsity, "learning_rate": rates}))


def published_curve(schedule: Schedule, target: float = TARGET) -> pd.DataFrame:
    """A paper's schedule, step by step."""
    events = pruning_events(schedule.sparsity, STEPS, target)
    curve = curve_of(schedule.epochs, schedule.learning_rate, events, STEPS)
    return curve.assign(task="squad", recipe=PUBLISHED, method="obert", target=target)[list(COLUMNS)]


def draw_schedules(content: pd.DataFrame, quantities: Iterable[str]) -> Figure:
    """A row a recipe, a column a quantity; colours are target sparsities, dashes tasks; a dot ends the rate."""
    with mpl.rc_context(STYLE):
        if content.empty:
            return empty_figure()
        recipes, tasks = list(content["recipe"].unique()), list(content["task"].unique())
        targets, quantities = sorted(content["target"].unique()), list(quantities)
        colours = dict(zip(targets, shades(len(targets)), strict=True))
        figure, axes = panels(len(recipes), len(quantities), height=2.4, share="col")
        for row, recipe in zip(axes, recipes, strict=True):
            runs = list(content[content["recipe"] == recipe].groupby(["task", "target"]))
            # The longest below: where a schedule scales with the target, shorter runs begin as longer ones do.
            for (task, target), run in sorted(runs, key=lambda each: -each[1]["epoch"].max()):
                look = {"color": colours[target], "linestyle": DASHES[tasks.index(task) % 4]}
                for axis, quantity in zip(row, quantities, strict=True):
                    if quantity == "sparsity":
                        axis.step(run["epoch"], 100 * run["sparsity"], where="post", **look)
                    else:
                        axis.plot(run["epoch"], run["learning_rate"], marker="o", markevery=[-1], **look)
            for axis, quantity in zip(row, quantities, strict=True):
                axis.set_title(recipe)
                axis.set_xlabel("epoch")
                axis.set_ylabel(LABELS[quantity])
                if quantity == "sparsity":
                    axis.set_ylim(0, 103)
                else:
                    axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        for axis in axes.flat:  # once all that shares an axis is drawn
            axis.set_ylim(bottom=0)
        handles = [Line2D([], [], color=colours[t], label=f"{100 * t:g} %") for t in targets]
        handles += [Line2D([], [], color="0.3", linestyle=DASHES[i % 4], label=t) for i, t in enumerate(tasks)]
        shared_legend(figure, "upper", handles)
    return figure


class PaperSchedule(Table):
    """One quantity: the paper's schedule, then those of gradual runs of the same kind."""

    paper = "obert"
    section = "Published and measured"
    epochs: ClassVar[int]
    quantity: ClassVar[str]
    rewinds_often: ClassVar[bool]  # whether the learning rate is rewound more than once, as in the paper's 30 epochs

    @property
    def needs(self) -> str:
        return f"gradual pruning on a task (downstream) {KINDS[self.rewinds_often]}"

    def belongs(self, results: Results, record: Record) -> bool:
        """Whether a run is of the experiment's own encoder, gradual, and its learning rate rewound as often."""
        training = recipe_of(record).get("training")
        rewinds = ((training or {}).get("learning_rate") or {}).get("rewind_epochs", ())
        is_own = record.key.task in results.main_tasks
        return is_own and training is not None and (len(rewinds) > 1) == self.rewinds_often

    def build(self, results: Results) -> pd.DataFrame:
        paper = published_curve(results.published.schedule(self.paper, self.epochs))
        measured = curves_of(results, partial(self.belongs, results))
        return pd.concat([paper, measured], ignore_index=True) if len(measured) else paper

    def is_measured(self, content: pd.DataFrame) -> bool:
        return bool((content["recipe"] != PUBLISHED).any())

    def notes(self, results: Results) -> tuple[Note, ...]:
        runs = [
            record.key
            for record in as_planned(results).of_kind(prunes=True, on_task=True)
            if self.belongs(results, record)
        ]
        return paper_notes(results, self.paper, runs, self.needs)

    def draw(self, content: pd.DataFrame) -> Figure:
        return draw_schedules(content, [self.quantity])
