"""What fits into a number of minutes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from obert.compression.budget import CUTS, _cuts, fit, fit_run
from obert.compression.draft import Draft
from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError
from obert.training.pace import Pace

PACE = Pace(step=0.1, event=30.0, steps=40, gradients=1024, per_gradient=20 / 1024)  # 10 s for solving


@pytest.fixture
def draft(root):
    """Of 20,000 features in batches of 8: 2,500 steps, 250 s, for a dense model."""
    run = SimpleNamespace(
        recipe=load_recipe("finetune"),
        key=RunKey("teacher", "sst2", ("finetune",), 0),
        model=SimpleNamespace(source="wheel:minilm"),
    )
    return Draft.by_guidelines(run, "obert", 6, 20_000)


def shares(recipe):
    """Of the guidelines' schedule, gradients and events."""
    return (
        recipe.scaling.unit_epochs,
        recipe.methods["obert"]["num_gradients"] / 1024,
        recipe.scaling.events_per_cycle / 4,
    )


def minutes(fitted):
    """Of the two dense models, and of four trials and two final models at 95 %."""
    dense = 1.8 * fitted.draft.features / 8 * 0.1 / 60
    return dense + 6 * fitted.minutes(0.95)


def test_without_a_limit_it_is_the_guidelines_own(draft):
    fitted = fit(draft, PACE, None, 0.2)
    assert fitted.draft.values == draft.values and fitted.share == 1 and fitted.pace == PACE


@pytest.mark.parametrize("limit", [30, 60, 120, 240, 480])
def test_it_fits_and_the_next_better_one_would_not(draft, limit):
    fitted = fit(draft, PACE, limit, 0.2)
    assert minutes(fitted) <= 0.85 * limit + 0.01
    recipe = fitted.draft.recipe
    kept = shares(recipe)
    assert kept in CUTS
    if kept != CUTS[0]:
        assert f"cut to {kept[1]:g} of it, so that all fits into {limit:g} minutes" in " ".join(
            fitted.draft.file().split()
        ).replace("# ", "")
        better = CUTS[CUTS.index(kept) - 1]
        [before] = [
            each
            for each in _cuts(fit(draft, PACE, None, 0.2).draft, PACE, limit, 1.0)
            if shares(each.draft.recipe) == better
        ]
        assert minutes(replace(before, draft=replace(before.draft, features=fitted.draft.features))) > 0.85 * limit


def test_more_minutes_never_do_worse(draft):
    found = [fit(draft, PACE, limit, 0.2) for limit in (30, 60, 120, 240, 480)]
    shares = [fitted.share for fitted in found]
    assert shares == sorted(shares) and shares[-1] == 1


def test_one_run_is_cut_until_it_fits(draft):
    """At 90 %, by a factor of about eight; before that by the gradients alone."""
    whole = fit_run(draft, PACE, None, 0.9)
    assert whole.draft == draft and whole.cuts(draft) == []
    needed = whole.minutes(0.9)
    assert fit_run(draft, PACE, needed, 0.9) == whole
    for limit in (0.9 * needed, needed / 2, needed / 4):
        fitted = fit_run(draft, PACE, limit, 0.9)
        assert fitted.minutes(0.9) <= limit
        recipe = fitted.draft.recipe
        kept = shares(recipe)
        assert kept in CUTS[1:]
        (said,) = fitted.cuts(draft)
        assert f"methods.obert.num_gradients {1024 * kept[1]:g} in place of 1024" in said
        assert (f"scaling.unit_epochs {kept[0]:g} in place of 1" in said) == (kept[0] < 1)
    with pytest.raises(UserError, match=r"--minutes 0\.1 is too short for 90 %.*No sparsity fits into 0\.1 minutes"):
        fit_run(draft, PACE, 0.1, 0.9)


def test_too_few_minutes_are_told_with_how_many_would_do(draft):
    with pytest.raises(UserError, match=r"--minutes 2 is too short: about \d+ are needed") as told:
        fit(draft, PACE, 2, 0.2)
    enough = float(str(told.value).split(": about ")[1].split()[0])
    assert fit(draft, PACE, 1.1 * enough, 0.2)


def test_fewer_gradients_save_no_solving_and_a_short_schedule_starts_from_the_dense_model(draft):
    whole, *_, last = _cuts(draft, PACE, 60, 1.0)
    assert whole.pace.event == 30 and last.pace.event == pytest.approx(10 + 20 / 8)
    assert whole.draft.recipe.start == "pretrained" and whole.draft.recipe.scaling.dense_cycles == 1
    assert last.draft.recipe.start == "teacher" and last.draft.recipe.scaling.dense_cycles == 0
    assert last.draft.recipe.at(0.9).schedule.start_epoch == 0
    assert last.draft.work(0.9).events == 4, "three cycles of pruning, one event each, and the first"


def test_a_search_is_judged_by_as_many_examples_as_there_is_time_for(draft):
    """A step of 8 examples takes 0.1 s, and judging an example a quarter of an eighth of that: 3.1 ms."""
    assert fit(draft, PACE, None, 0.2).judged(None) == 8000
    fitted = fit(draft, PACE, 30, 0.2)
    assert fitted.judged(30) == 5760, "of 18 s"
    assert fitted.judged(600) == 8000
