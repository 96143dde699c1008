"""How long a run took, in all the processes that made it."""

from collections.abc import Mapping


def run_seconds(wall_time: float, costs: Mapping[str, float]) -> float:
    """Seconds that a run took.

    A run that was killed is made by several processes. Its record has the wall time of the last one, but training and
    pruning of all of them.

    Args:
        wall_time, costs: `wall_time_seconds` and `costs` of its record.
    """
    return max(wall_time, costs.get("training_seconds", 0.0) + costs.get("pruning_seconds", 0.0))
