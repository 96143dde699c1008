"""Figure: sparsity and learning rate against epoch, as training logged them."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from obert.tables import Base, Results
from obert.tables._figures import DASHES, STYLE, empty_figure, panels, thinned

COLUMNS = ("task", "recipe", "method", "target", "epoch", "sparsity", "learning_rate")


class Schedules(Base):
    """A row of panels a recipe; colours are target sparsities, dashes tasks."""

    title = "Schedules"
    caption = (
        "Sparsity and learning rate against epoch, from the training curves of one run (first method and seed) for "
        "each recipe, task and target sparsity. One-shot recipes have none."
    )

    section = "Training and sparsity"

    def build(self, results: Results) -> pd.DataFrame:
        parts, seen = [], set()
        for record in results.stage("downstream"):
            key = record.key
            identity = (key.recipe, key.task, key.sparsity)
            if identity in seen:
                continue
            curves = results.curves(key)
            if curves is not None and not curves.empty:
                seen.add(identity)
                part = thinned(curves)[["epoch", "sparsity", "learning_rate"]]
                parts.append(part.assign(task=key.task, recipe=key.recipe, method=key.method, target=key.sparsity))
        return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            recipes, tasks = list(content["recipe"].unique()), list(content["task"].unique())
            targets = sorted(content["target"].unique())
            figure, axes = panels(len(recipes), 2, height=2.4, share="col")
            for (sparsity, rate), recipe in zip(axes, recipes, strict=True):
                for (task, target), run in content[content["recipe"] == recipe].groupby(["task", "target"]):
                    look = {"color": f"C{targets.index(target) % 10}", "linestyle": DASHES[tasks.index(task) % 4]}
                    sparsity.step(run["epoch"], 100 * run["sparsity"], where="post", **look)
                    rate.plot(run["epoch"], run["learning_rate"], **look)
                for axis, label in ((sparsity, "sparsity (%)"), (rate, "learning rate")):
                    axis.set_title(recipe)
                    axis.set_xlabel("epoch")
                    axis.set_ylabel(label)
                sparsity.set_ylim(0, 103)
                rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
            handles = [Line2D([], [], color=f"C{i % 10}", label=f"{100 * t:g} %") for i, t in enumerate(targets)]
            handles += [Line2D([], [], color="0.3", linestyle=DASHES[i % 4], label=t) for i, t in enumerate(tasks)]
            figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6), fontsize=8)
        return figure
