"""Points lost, against a plain bootstrap in Python."""

import numpy as np
import pandas as pd
import pytest

from obert.compression.verdict import Verdict, surprise, weakness
from obert.experiment.keys import RunKey
from obert.foundation.errors import UserError
from obert.tables._chance import Scale

DENSE = RunKey("teacher", "sst2", ("finetune",), 0)
PRUNED = [RunKey("downstream", "sst2", ("short",), seed, "obert", 0.9) for seed in (1, 2)]


class Known:
    """Results whose scores are known."""

    def __init__(self, scores):
        self.scores = scores

    def terms(self, key):
        found = self.scores.get(key)
        return None if found is None else pd.DataFrame({0: found}, index=[f"e{i}" for i in range(len(found))])

    def metric(self, key):
        return lambda terms: terms[..., 0]


def test_it_is_the_paired_difference_over_examples():
    generator = np.random.default_rng(3)
    dense = 100.0 * (generator.random(400) < 0.9)
    pruned = [np.where(generator.random(400) < 0.05, 100.0 - dense, dense) for _ in PRUNED]
    found = Verdict.of(Known({DENSE: dense, **dict(zip(PRUNED, pruned, strict=True))}), DENSE, PRUNED)
    lost = dense - np.array(pruned)
    assert found.drop.mean == pytest.approx(lost.mean())
    assert found.score == pytest.approx(np.mean(pruned)) and found.examples == 400
    drawn = [generator.integers(0, 400, 400) for _ in range(4000)]
    low, high = np.percentile([lost[:, examples].mean() for examples in drawn], [2.5, 97.5])
    spread = lost.mean(axis=0).std() / 20
    assert found.drop.low == pytest.approx(low, abs=0.2 * spread)
    assert found.drop.high == pytest.approx(high, abs=0.2 * spread)
    assert found.within(found.drop.high) and not found.within(found.drop.high - 0.01)


def test_few_equal_examples_make_nothing_sure():
    """Of 300 examples none differs: up to 1 % may, so that a drop of one point is the least that is sure."""
    scores = {key: np.full(300, 100.0) for key in (DENSE, *PRUNED)}
    found = Verdict.of(Known(scores), DENSE, PRUNED)
    assert (found.drop.low, found.drop.high) == (0, 0)
    assert found.within(1) and not found.within(0.99)


def test_a_validation_that_is_sure_of_more_is_a_surprise():
    """Ten of 100 examples are lost: some 4 to 16 points."""
    scores = {key: np.full(100, 100.0) for key in (DENSE, *PRUNED)}
    for key in PRUNED:
        scores[key][:10] = 0
    found = Verdict.of(Known(scores), DENSE, PRUNED)
    assert 3 < found.drop.low < 6 and surprise(found, found.drop.low) is None
    assert "on the validation examples more than 3 points are lost" in surprise(found, 3)


def test_without_predictions_there_is_no_verdict():
    with pytest.raises(UserError, match="keep no predictions"):
        Verdict.of(Known({DENSE: np.ones(3)}), DENSE, PRUNED)


@pytest.mark.parametrize(
    ("dense", "chance", "warned"), [(23.1, 53.8, True), (50.0, 50.0, True), (50.1, 50.0, False), (23.1, np.nan, False)]
)
def test_a_dense_model_that_has_learnt_nothing_is_told(monkeypatch, dense, chance, warned):
    """Else any sparsity "loses nothing"."""
    monkeypatch.setattr("obert.compression.verdict.Scale.of", lambda *_: Scale(dense, chance))
    said = weakness(None, "sst2")
    assert (said is not None) == warned
    if warned:
        assert f"scores {dense:.2f}, and one answer to everything {chance:.2f}" in said
