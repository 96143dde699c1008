"""Figure: the Pareto front of the score against sparsity, over all methods and recipes."""

import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results, Table
from obert.tables._measured import groups, metric_of
from obert.tables._pareto import POINT, RULE, dense_group, draw_fronts, mark_front, point


class ParetoSparsity(Table):
    """One point a model, a panel a task."""

    title = "Pareto front: score against sparsity"
    caption = f"Sparsity is the target in the encoder's linear layers. {RULE} Budgets differ between recipes."

    section = "Trade-offs"

    def build(self, results: Results) -> pd.DataFrame:
        rows = [
            {"task": task, "metric": metric_of(results, task)} | point(group)
            for task in results.tasks
            if (found := groups(results, task))
            for group in (*dense_group(results, task), *found)
        ]
        return mark_front(pd.DataFrame(rows, columns=["task", "metric", *POINT]), "sparsity", ["task"])

    def draw(self, content: pd.DataFrame) -> Figure:
        return draw_fronts(content, "sparsity", "sparsity of the encoder (%)", factor=100)
