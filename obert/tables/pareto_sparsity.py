"""Figure: the Pareto front of the score against sparsity, over all methods and recipes."""

import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results, Table
from obert.tables._measured import DENSE, groups, metric_of
from obert.tables._pareto import POINT, RULE, dense_group, draw_fronts, mark_front, point
from obert.tables._scopes import is_wide, whole_sparsity
from obert.tables._separation import mark_separated

WHOLE = "whole_model_sparsity"


class ParetoSparsity(Table):
    """One point a model, a panel a task."""

    title = "Pareto front: score against sparsity"
    caption = (
        "Sparsity is the target in the encoder's linear layers. Where models differ in what was pruned, it is that of "
        f"all weight matrices, as measured. {RULE} Budgets differ between recipes."
    )

    section = "Trade-offs"

    def build(self, results: Results) -> pd.DataFrame:
        found = {task: groups(results, task) for task in results.tasks}
        wide = any(is_wide(group) for of_task in found.values() for group in of_task)
        columns = ["task", "metric", *POINT, *([WHOLE] if wide else ())]
        rows = []
        for task, of_task in found.items():
            for group in (*dense_group(results, task), *of_task) if of_task else ():
                row = {"task": task, "metric": metric_of(results, task)} | point(group)
                rows.append(row | {WHOLE: 0.0 if group.method == DENSE else whole_sparsity(group)})
        gain = WHOLE if wide else "sparsity"
        points = mark_front(pd.DataFrame(rows, columns=columns), gain, ["task"])
        return mark_separated(results, points, gain, ["task"], (gain, gain))

    def draw(self, content: pd.DataFrame) -> Figure:
        gain, of = (WHOLE, "whole model") if WHOLE in content else ("sparsity", "encoder")
        return draw_fronts(content, gain, f"sparsity of the {of} (%)", factor=100)
