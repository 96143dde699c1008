"""How many points pruned models lose to the dense one, with the paired interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obert.experiment.keys import RunKey
from obert.foundation.errors import UserError
from obert.statistics.estimates import Difference, bootstrap
from obert.statistics.formatting import format_number
from obert.tables import Results
from obert.tables._chance import Scale

UNSEEN = 3  # examples that may differ though none was seen to, at 95 %


@dataclass(frozen=True)
class Verdict:
    """Of one sparsity.

    Attributes:
        score: of the pruned models, mean over seeds, in points; `interval` is its own.
        drop: how far it lies below the dense model's on the same examples. Both intervals are of these models, over
            examples: two seeds tell too poorly how far others would be.
        examples: on which both are judged.
    """

    score: float
    interval: Difference
    drop: Difference
    examples: int

    @classmethod
    def of(cls, results: Results, dense: RunKey, pruned: Sequence[RunKey]) -> Verdict:
        """Of pruned models, a seed each.

        Raises:
            UserError: predictions are missing, damaged, or of other examples.
        """
        terms = [results.terms(key) for key in (dense, *pruned)]
        if any(found is None for found in terms):
            raise UserError(f"{dense.task}: the runs keep no predictions, so that no interval can be had")
        metric = results.metric(dense)
        reference, found = bootstrap([terms[:1], terms[1:]], metric)
        lost = (reference - found).of_these_seeds()
        return cls(found.mean, found.of_these_seeds().interval(), lost.interval(), len(terms[0]))

    def within(self, points: float) -> bool:
        """Whether it is sure that no more is lost: the whole interval says so, and the examples are many enough.

        Where none of n examples differs, up to 3 / n of all others may: the rule of three, Hanley and Lippman-Hand
        1983, "If nothing goes wrong, is everything all right?". A bootstrap cannot tell: its interval has no width.
        """
        return max(self.drop.high, 100 * UNSEEN / self.examples) <= points

    def __str__(self) -> str:
        return f"{format_number(self.score)}, {format_drop(self.drop)}"


def format_drop(drop: Difference) -> str:
    """E.g. "0.50 [-0.30, 1.20] points below the dense model"."""
    low, high = (format_number(bound) for bound in (drop.low, drop.high))
    return f"{format_number(drop.mean)} [{low}, {high}] points below the dense model"


def surprise(judged: Verdict, points: float) -> str | None:
    """What to say where validation contradicts the search, as it does if it is of another kind than training."""
    if judged.drop.low <= points:
        return None
    return (
        f"take care: on the validation examples more than {points:g} points are lost. They are harder than the "
        "held-out training examples, or of another kind: ask for a smaller drop"
    )


def weakness(results: Results, task: str) -> str | None:
    """What to say of a dense model that is no better than chance: it has nothing that pruning could lose."""
    scale = Scale.of(results, task)
    if not scale.dense <= scale.chance:  # chance may be unknown, NaN
        return None
    return (
        f"take care: the dense model scores {format_number(scale.dense)}, and one answer to everything "
        f"{format_number(scale.chance)}. It has learnt nothing that pruning could lose: make a better one first"
    )
