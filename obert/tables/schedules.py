"""Figure: sparsity and learning rate against epoch, as training logged them."""

import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results, Table
from obert.tables._schedules import LABELS, curves_of, draw_schedules


class Schedules(Table):
    """A row of panels a recipe; colours are target sparsities, dashes tasks."""

    title = "Schedules"
    caption = (
        "Sparsity and learning rate against epoch, from the training curves of one run (first method and seed) for "
        "each recipe, task and target sparsity. One-shot recipes have none."
    )

    section = "Training and sparsity"

    def build(self, results: Results) -> pd.DataFrame:
        return curves_of(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        return draw_schedules(content, LABELS)
