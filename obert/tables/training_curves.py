"""Figure: training loss against epoch."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from obert.tables import Results, Table
from obert.tables._figures import DASHES, STYLE, method_styles, thinned
from obert.tables._measured import DENSE
from obert.tables._panels import empty_figure, shared_legend, some_panels

WINDOW = 0.03  # of a run's steps
COLUMNS = ("task", "recipe", "method", "target", "epoch", "loss")


class TrainingCurves(Table):
    """A row of panels a recipe, a column a task; colours are methods, dashes target sparsities."""

    title = "Training curves"
    caption = (
        "Training loss (with distillation where the recipe has it) against epoch, a running mean over 3 % of the steps "
        "of one run: the first seed of each recipe, method and target sparsity. One-shot recipes do not train."
    )

    section = "Training and sparsity"

    def build(self, results: Results) -> pd.DataFrame:
        parts, seen = [], set()
        for key in (record.key for record in results.of_kind(trains=True)):
            identity = (key.stage, key.task, key.recipe, key.method, key.sparsity)
            if identity in seen:
                continue
            curves = results.curves(key)
            if curves is not None and not curves.empty:
                seen.add(identity)
                window = max(1, round(WINDOW * len(curves)))
                smooth = curves.assign(loss=curves["loss"].rolling(window, min_periods=1).mean())
                of_run = {"task": key.task, "recipe": key.recipe, "method": key.method or DENSE}
                parts.append(thinned(smooth)[["epoch", "loss"]].assign(**of_run, target=key.sparsity or 0.0))
        return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            targets = sorted(content["target"].unique())
            methods = content["method"].unique()
            styles = method_styles(methods)
            looks = {name: {"color": styles[name]["color"]} for name in methods}
            dashes = {target: DASHES[i % len(DASHES)] for i, target in enumerate(targets)}
            panel_of = list(dict.fromkeys(zip(content["recipe"], content["task"], strict=True)))
            figure, axes = some_panels(len(panel_of), columns=2, height=2.8)
            for axis, (recipe, task) in zip(axes, panel_of, strict=True):
                part = content[(content["recipe"] == recipe) & (content["task"] == task)]
                for (method, target), run in part.groupby(["method", "target"], sort=True):
                    axis.plot(run["epoch"], run["loss"], linestyle=dashes[target], linewidth=1.2, **looks[method])
                axis.set_title(f"{task}\n{recipe}")
                axis.set_xlabel("epoch")
                axis.set_ylabel("training loss")
                axis.set_ylim(bottom=0)
            handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
            handles += [Line2D([], [], color="0.3", linestyle=dashes[t], label=f"{100 * t:g} %") for t in targets]
            shared_legend(figure, "upper", handles)
        return figure
