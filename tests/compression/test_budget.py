"""What fits into a number of minutes."""

from types import SimpleNamespace

import pytest

from obert.compression.budget import CUTS, fit, fit_run
from obert.compression.draft import Draft
from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError
from obert.training.pace import Pace

PACE = Pace(step=0.1, event=30.0, steps=40, gradients=1024)


@pytest.fixture
def draft(root):
    """Of 20,000 features in batches of 8: 2,500 steps, 250 s, for a dense model."""
    run = SimpleNamespace(
        recipe=load_recipe("finetune"),
        key=RunKey("teacher", "sst2", ("finetune",), 0),
        model=SimpleNamespace(source="wheel:minilm"),
    )
    return Draft.by_guidelines(run, "obert", 6, 20_000)


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
    kept = recipe.scaling.unit_epochs, recipe.methods["obert"]["num_gradients"] / 1024
    assert kept in CUTS
    if kept != CUTS[0]:
        assert f"cut to {kept[1]:g} of it, so that all fits into {limit:g} minutes" in " ".join(
            fitted.draft.file().split()
        ).replace("# ", "")
        better = CUTS[CUTS.index(kept) - 1]
        work = fitted.draft.work(0.95)
        steps, event = work.steps * better[0] / kept[0], PACE.event * better[1]
        dense = 1.8 * fitted.draft.features / 8 * 0.1 / 60
        assert dense + 6 * (steps * PACE.step + work.events * event) / 60 > 0.85 * limit


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
        kept = recipe.scaling.unit_epochs, recipe.methods["obert"]["num_gradients"] / 1024
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
