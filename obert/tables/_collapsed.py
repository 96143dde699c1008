"""How many runs of a group have collapsed: from their records, or from the predictions beside older ones."""

import math

from obert.records.record import Record
from obert.statistics.collapse import collapse, is_collapsed, largest_share
from obert.tables import Results
from obert.tables._measured import Group

COLLAPSED = ("collapsed", "judged")  # columns: runs that have, and of how many that is known


def collapsed_runs(results: Results, group: Group) -> dict[str, float]:
    """COLLAPSED of a group; NaN and 0 where it is known of no run."""
    known = [one for record in group.records if (one := has_collapsed(results, record)) is not None]
    return dict(zip(COLLAPSED, (sum(known) if known else math.nan, len(known)), strict=True))


def has_collapsed(results: Results, record: Record) -> bool | None:
    """Whether a classifier has collapsed; None for another task, and where neither record nor predictions tell.

    Predictions without the right answers beside them tell of a model that gives one answer to everything.
    """
    said, accuracy = record.details, record.metrics.get("accuracy")
    if "majority_rate" in said and accuracy is not None:  # the flag of older questions has another chance
        return is_collapsed(said["majority_rate"], said["constant_rate"], accuracy.value, accuracy.count)
    if "collapsed" in said:
        return said["collapsed"]
    if accuracy is None:
        return None
    counted = [p for p in results.predictions(record.key) if p.get("score", 0) is not None]
    if not counted:
        return None
    answers = [p["prediction"] for p in counted]
    if all("label" in p for p in counted):
        labels = [p["label"] for p in counted]
        right = [a == b for a, b in zip(answers, labels, strict=True)]
        return bool(collapse(answers, labels, right)["collapsed"])
    return True if largest_share(answers) == 1 else None


def collapsed_text(collapsed: float, judged: float, runs: float) -> str:
    """E.g. "1 of 3"; "1 of 2 (1 unknown)"; "unknown"."""
    if math.isnan(collapsed):
        return "unknown" if runs else ""
    unknown = f" ({runs - judged:.0f} unknown)" if judged < runs else ""
    return f"{collapsed:.0f} of {judged:.0f}{unknown}"
