"""A figure's files are the same byte for byte whenever they are drawn again."""

import random

import kiwisolver
from matplotlib.figure import Figure

from obert.tables._figures import fix_layout, save


def test_figure_files_are_the_same_bytes_in_every_process():
    """The layout's solver is given memory in another order for each figure; without rounding, some differ."""
    kept, files = [], set()
    for seed in range(8):
        constraints = [kiwisolver.Variable() + i >= 0 for i in range(3000)]
        random.Random(seed).shuffle(constraints)
        kept.append(constraints[2000:])
        del constraints
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots(3, 1, height_ratios=[4, 20, 3])
        for axis in axes:
            drawn = axis.pcolormesh([[0, 1], [2, 3]])
            axis.set_title("a task")
        figure.colorbar(drawn, ax=list(axes), label="points", shrink=0.3)
        fix_layout(figure)
        files.add(save(figure, "svg"))
    assert len(files) == 1
