"""What fits into a number of minutes: how many training examples, how long a schedule, how many gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from obert.compression.draft import GRADIENTS, Draft, cost, rounded
from obert.compression.question import SEEDS
from obert.experiment.guidelines import Value
from obert.foundation.errors import UserError
from obert.training.pace import Pace

TRIALS = 4  # pruned models that are counted with in the search
SEARCHED = 0.95  # sparsity that a run is counted at
DENSE_SHARE = 0.2  # of the minutes, at most, for the two dense models
OTHER_SHARE = 0.15  # for loading, scoring, export and timing
JUDGED = 8000  # held-out examples: of 5 % that one model alone gets right, the interval is then 1 point wide
JUDGED_SHARE = 0.01  # of the minutes, at most, for judging one model by them
FORWARD = 0.25  # of a step with distillation: a pass of the teacher's, and about three of the model's
FEWEST = 500  # training examples: with fewer no sparsity could be told from another
CUTS = (
    (1.0, 1.0, 1.0),
    (1.0, 0.5, 1.0),
    (1.0, 0.25, 0.5),
    (0.5, 0.25, 0.5),
    (0.5, 0.125, 0.25),
    (0.25, 0.125, 0.25),
    (0.125, 0.125, 0.25),
)
"""Shares of the dense schedule that a cycle is, of an event's gradients, and of a cycle's events, the best first."""
SHORT = {
    "start": Value("start", "teacher", "a short schedule is not spent on what the dense model has learnt", "ours"),
    "scaling.dense_cycles": Value("scaling.dense_cycles", 0.0, "for the same reason", "ours"),
}
"""In place of values of a recipe whose cycles are cut."""
WHY = "cut to {share:g} of it, so that all fits into {minutes:g} minutes"


@dataclass(frozen=True)
class Fitted:
    """What fits.

    Attributes:
        draft: of the recipe.
        share: of the training examples that are used.
        pace: of the draft's steps and events.
    """

    draft: Draft
    share: float
    pace: Pace

    def minutes(self, sparsity: float) -> float:
        """Of one run."""
        return self.draft.work(sparsity).minutes(self.pace)

    def judged(self, minutes: float | None) -> int:
        """The held-out examples to judge a model by, at most: more are slow, and tell little more."""
        if minutes is None:
            return JUDGED
        example = FORWARD * self.pace.step / self.draft.recipe.training.batch_size
        return min(JUDGED, int(60 * JUDGED_SHARE * minutes / example))

    def cuts(self, whole: Draft) -> list[str]:
        """What was cut of the whole recipe, in words; nothing if nothing was."""
        before = {value.key: value.value for value in whole.values}
        cut = [v for v in self.draft.values if v.value != before[v.key]]
        named = ", ".join(f"{value.key} {_told(value.value)} in place of {_told(before[value.key])}" for value in cut)
        return [f"To fit, it has {named}: expect a lower score than with all of it."] if cut else []


def _told(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def fit(draft: Draft, pace: Pace, minutes: float | None, held_out: float) -> Fitted:
    """The best that the guidelines have for so many minutes: fewer examples first, then fewer gradients, then less
    training.

    Args:
        draft: by the guidelines, on all training examples.
        pace: of the draft on this machine.
        minutes: for everything, from the first dense model to the last timing; None for no limit.
        held_out: share of the training examples that the search's dense model is not trained on.

    Raises:
        UserError: they are too few.
    """
    if minutes is None:
        return Fitted(draft, 1.0, pace)
    if (found := _fitted(draft, pace, minutes, held_out)) is not None:
        return found
    enough = minutes
    while _fitted(draft, pace, enough, held_out) is None:
        enough *= 1.25
    raise UserError(
        f"--minutes {minutes:g} is too short: about {rounded(enough)} are needed on this machine, with the shortest "
        "schedule and the fewest examples. Give more, or a smaller model"
    )


def fit_run(draft: Draft, pace: Pace, minutes: float | None, sparsity: float) -> Fitted:
    """The best that the guidelines have for one run to a target: fewer gradients first, then less training.

    Args:
        minutes: of the run, without the dense model's; None for no limit.

    Raises:
        UserError: they are too few; with what would fit.
    """
    last = Fitted(draft, 1.0, pace)
    if minutes is None or last.minutes(sparsity) <= minutes:
        return last
    for fitted in _cuts(draft, pace, minutes, 1.0):
        try:
            needed = fitted.minutes(sparsity)
        except UserError:  # so short that two events fall on one step
            break
        if needed <= minutes:
            return fitted
        last = fitted
    highest = last.draft.highest(last.pace, minutes, sparsity)
    fits = "No sparsity fits" if highest is None else f"{100 * highest:g} % fits"
    raise UserError(
        f"--minutes {minutes:g} is too short for {100 * sparsity:g} %, with the shortest schedule that can be: "
        f"{cost(last.draft.work(sparsity), last.pace)} {fits} into {minutes:g} minutes; {100 * sparsity:g} % takes "
        f"--minutes {rounded(last.minutes(sparsity))}"
    )


def _fitted(draft: Draft, pace: Pace, minutes: float, held_out: float) -> Fitted | None:
    dense = (2 - held_out) * draft.dense_steps * pace.step / 60
    share = min(1.0, DENSE_SHARE * minutes / dense)
    if share * draft.features < min(FEWEST, draft.features):
        return None
    fewer = replace(draft, features=int(share * draft.features))
    left = (1 - OTHER_SHARE) * minutes - share * dense
    for fitted in _cuts(fewer, pace, minutes, share):
        try:
            if (TRIALS + len(SEEDS)) * fitted.minutes(SEARCHED) <= left:
                return fitted
        except UserError:  # so short that two events fall on one step
            return None
    return None


def _cuts(draft: Draft, pace: Pace, minutes: float, share: float) -> Iterator[Fitted]:
    """The draft as it is and cut ever more, on a share of the training examples."""
    whole = next((value.value for value in draft.values if value.key == GRADIENTS), 0)
    for cut in CUTS:
        event = pace.event - (1 - cut[1]) * whole * pace.per_gradient
        yield Fitted(_cut(draft, cut, minutes), share, replace(pace, event=event))


def _cut(draft: Draft, cut: tuple[float, float, float], minutes: float) -> Draft:
    """The draft with a share of its schedule, of its gradients, and of its events."""
    schedule, gradients, events = cut
    shares = {
        "scaling.unit_epochs": schedule,
        "training.learning_rate.warmup_epochs": schedule,
        GRADIENTS: gradients,
        "scaling.events_per_cycle": events,
    }
    values = tuple(_cut_value(value, shares.get(value.key, 1.0), minutes) for value in draft.values)
    if schedule < 1:
        values = tuple(SHORT.get(value.key, value) for value in values)
    return replace(draft, values=values)


def _cut_value(value: Value, share: float, minutes: float) -> Value:
    if share == 1:
        return value
    number = type(value.value)(share * value.value)
    return replace(value, value=number, why=f"{value.why}; {WHY.format(share=share, minutes=minutes)}")
