"""Figure: the Pareto front of the score against the speed-up on the CPU, over all methods and recipes."""

import math

import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Note, Results, Table
from obert.tables._engines import OVER, SPEEDUP, engine_notes, engines_of, size_and_speed, speedup_interval, timing
from obert.tables._measured import Group, groups, metric_of
from obert.tables._pareto import POINT, RULE, dense_group, draw_fronts, mark_front, point
from obert.tables._separation import mark_separated

BOUNDS = ("speedup_low", "speedup_high")


class ParetoSpeed(Table):
    """One point a timed model, a panel a task and engine; the dense model is at 1 in what speed-ups are over."""

    title = "Pareto front: score against speed"
    caption = f"Speed-up is {OVER}. First seed. {RULE}"

    section = "Trade-offs"

    def build(self, results: Results) -> pd.DataFrame:
        engines, rows = engines_of(results), []
        for task in results.tasks:
            found = [(group, size_and_speed(results, group.key, engines)) for group in groups(results, task)]
            for engine in engines:
                name = f"{engine}{SPEEDUP}"
                timed = [(group, speeds[name]) for group, speeds in found if not math.isnan(speeds[name])]
                dense = [(group, _dense(results, group, engine)) for group in dense_group(results, task) if timed]
                rows += [_row(results, group, engine, speedup) for group, speedup in (*dense, *timed)]
        columns = ["task", "metric", "engine", "speedup", *BOUNDS, *POINT]
        points = mark_front(pd.DataFrame(rows, columns=columns), "speedup", ["task", "engine"])
        return mark_separated(results, points, "speedup", ["task", "engine"], BOUNDS)

    def draw(self, content: pd.DataFrame) -> Figure:
        figure = draw_fronts(content, "speedup", "times the dense model's throughput", rows="engine")
        for axis in figure.axes if len(content) else ():
            axis.set_xlim(0, 1.15 * content["speedup"].max())  # noise of a few percent is not to look like a difference
        return figure

    def notes(self, results: Results) -> tuple[Note, ...]:
        return engine_notes(results)


def _dense(results: Results, group: Group, engine: str) -> float:
    """The speed-up of a dense model; 1 where it is what speed-ups are over."""
    found = size_and_speed(results, group.key, [engine])[f"{engine}{SPEEDUP}"]
    return 1.0 if math.isnan(found) else found


def _row(results: Results, group: Group, engine: str, speedup: float) -> dict:
    shared = {"task": group.key.task, "metric": metric_of(results, group.key.task)}
    bounds = dict(zip(BOUNDS, speedup_interval(timing(results, group.key), engine), strict=True))
    return shared | {"engine": engine, "speedup": speedup} | bounds | point(group)
