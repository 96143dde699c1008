"""The grid of `configs/real_tasks.yaml`: the terms are equal, and the longer control is as long as it says."""

from collections import Counter
from itertools import product

import pytest

from obert.experiment.plan import Plan
from obert.experiment.recipes import load_method

METHODS = ("lottery_ticket", "magnitude", "mfac", "obd", "obert", "platon", "prune_ofa", "random", "rigl", "snip")
BATCH = 16
EXAMPLES = {"sst2": 16000, "stsb": 5743}  # of STS-B's 5,749, without those that its validation examples repeat


@pytest.fixture
def runs(root):
    return list(Plan.load("configs/real_tasks.yaml").of_stage("downstream"))


def steps(run):
    return run.recipe.training.epochs * EXAMPLES[run.key.task] / BATCH


def method_of(run):
    return load_method(run.key.method, run.recipe.methods.get(run.key.method, {}), run.key.recipe)


def of(runs, recipe):
    return [run for run in runs if run.key.recipe == recipe]


def test_every_method_has_its_sparsities_with_three_seeds_on_both_tasks(runs):
    keys = [run.key for run in of(runs, "real_equal_terms")]
    found = Counter((key.method, key.sparsity, key.task) for key in keys)
    cells = [*product(METHODS, (0.9, 0.97)), ("movement", 0.9), ("soft_movement", 0.9)]
    assert found == {(*cell, task): 3 for cell in cells for task in EXAMPLES}


def test_all_train_as_many_steps_and_have_their_events_in_the_first_half(runs):
    # in epochs; None: each step
    apart = {"lottery_ticket": 1 / 5, "rigl": 1 / 50, "movement": None, "soft_movement": None}
    for run in of(runs, "real_equal_terms"):
        assert steps(run) == pytest.approx(500, abs=3), run.key
        window, epochs = run.recipe.schedule, run.recipe.training.epochs
        assert window.end_epoch == pytest.approx(epochs / 2)
        assert window.start_epoch == pytest.approx(epochs / 10)
        share = apart.get(run.key.method, 1 / 10)
        assert window.every_epochs == (pytest.approx(epochs * share) if share else None), run.key


def test_methods_that_look_at_examples_look_at_as_many(runs):
    looked_at = {}
    for run in of(runs, "real_equal_terms"):
        method = method_of(run)
        examples = method.gradient_examples() * getattr(method, "recomputations", 1) + method.forward_examples()
        if examples:
            window = run.recipe.schedule
            until = window.rerank_until_epoch if run.key.method == "rigl" else window.end_epoch  # RigL's weights return
            events = 1 + round((until - window.start_epoch) / window.every_epochs)
            looked_at[run.key.task, run.key.method] = examples * events
    expected = dict.fromkeys(("mfac", "obd", "obert", "snip"), 5 * 256) | {"rigl": 26 * 48}  # no more than the others
    assert looked_at == {(task, method): number for task in EXAMPLES for method, number in expected.items()}


def test_the_control_trains_longer_by_the_examples_that_obert_draws_gradients_of(runs):
    pruned_by_obert = [run for run in of(runs, "real_equal_terms") if run.key.method == "obert"]
    for task in EXAMPLES:
        longer = next(run for run in of(runs, "real_equal_terms_longer") if run.key.task == task)
        run = next(run for run in pruned_by_obert if run.key.task == task)
        drawn = method_of(run).gradient_examples()
        assert (steps(longer) - steps(run)) * BATCH == pytest.approx(5 * drawn, rel=0.01)
