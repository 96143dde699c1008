"""The grid of `configs/real_tasks.yaml`: the terms are equal."""

from collections import Counter
from itertools import product

import pytest

from obert.experiment.plan import Plan
from obert.experiment.recipes import load_method

METHODS = {
    0.97: ("lottery_ticket", "magnitude", "obd", "obert", "platon", "prune_ofa", "random", "rigl", "snip"),
    0.9: ("magnitude", "obert", "platon"),
}
BATCH = 16
EXAMPLES = {"sst2": 16000, "stsb": 5743}  # of STS-B's 5,749, without those that its validation examples repeat


@pytest.fixture
def runs(root):
    return list(Plan.load("configs/real_tasks.yaml").of_stage("downstream"))


def steps(run):
    return run.recipe.training.epochs * EXAMPLES[run.key.task] / BATCH


def method_of(run):
    return load_method(run.key.method, run.recipe.methods.get(run.key.method, {}), run.key.recipe)


def test_every_method_has_its_sparsities_with_three_seeds(runs):
    found = Counter((run.key.method, run.key.sparsity, run.key.task) for run in runs)
    cells = [(method, sparsity, task) for sparsity, of in METHODS.items() for method, task in product(of, EXAMPLES)]
    assert found == dict.fromkeys([*cells, ("movement", 0.9, "sst2")], 3)


def test_all_train_as_many_steps_and_have_their_events_in_the_first_half(runs):
    # in epochs; None: each step
    apart = {"lottery_ticket": 1 / 5, "rigl": 1 / 50, "movement": None}
    for run in runs:
        assert steps(run) == pytest.approx(500, abs=3), run.key
        window, epochs = run.recipe.schedule, run.recipe.training.epochs
        assert window.end_epoch == pytest.approx(epochs / 2)
        assert window.start_epoch == pytest.approx(epochs / 10)
        share = apart.get(run.key.method, 1 / 10)
        assert window.every_epochs == (pytest.approx(epochs * share) if share else None), run.key


def test_methods_that_look_at_examples_look_at_as_many(runs):
    looked_at = {}
    for run in runs:
        method = method_of(run)
        examples = method.gradient_examples() * getattr(method, "recomputations", 1) + method.forward_examples()
        if examples:
            window = run.recipe.schedule
            until = window.rerank_until_epoch if run.key.method == "rigl" else window.end_epoch  # RigL's weights return
            events = 1 + round((until - window.start_epoch) / window.every_epochs)
            looked_at[run.key.task, run.key.method] = examples * events
    expected = dict.fromkeys(("obd", "obert", "snip"), 5 * 256) | {"rigl": 26 * 48}  # no more than the others
    assert looked_at == {(task, method): number for task in EXAMPLES for method, number in expected.items()}
