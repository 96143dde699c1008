"""The picture of models that were timed by hand shows the table's numbers."""

import pandas as pd
import pytest

from obert.tables._speeds import draw_speeds


@pytest.fixture
def rows():
    """Two engines and two models at two batch sizes; the second engine timed the first model alone."""
    timed = [("fast", "dense", 100.0), ("fast", "small", 400.0), ("slow", "dense", 50.0)]
    return pd.DataFrame(
        {
            "engine": engine, "model": model, "batch_size": size, "sequence_length": 128, "threads": 2,
            "items_per_second": size * value, "items_per_second_low": 0.9 * size * value,
            "items_per_second_high": 1.2 * size * value,
        }
        for size in (1, 8) for engine, model, value in timed
    )  # fmt: skip


def test_bars_begin_at_0_and_end_at_the_value(rows):
    figure = draw_speeds(rows)
    assert [axis.get_title() for axis in figure.axes] == ["1 x 128 tokens, 2 threads", "8 x 128 tokens, 2 threads"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["fast", "slow"]
    for size, axis in zip((1, 8), figure.axes, strict=True):
        bars = {round(bar.get_y() + bar.get_height() / 2, 6): (bar.get_x(), bar.get_width()) for bar in axis.patches}
        assert bars == {-0.2: (0, 100 * size), 0.8: (0, 50 * size), 0.2: (0, 400 * size)}
        assert axis.get_xlim()[0] == 0 and axis.get_xlim()[1] > 480 * size
        ends = [line.get_segments()[0][:, 0].tolist() for line in axis.collections]
        assert ends[1] == pytest.approx([360 * size, 480 * size])


def test_one_model_needs_no_legend(rows):
    assert draw_speeds(rows).legends
    assert not draw_speeds(rows[rows["model"] == "dense"]).legends
