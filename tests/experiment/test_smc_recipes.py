"""SMC-Bench's recipes, against the numbers of its paper's Table 3 and of its code."""

from itertools import pairwise

import pytest

from obert.experiment.recipes import RECIPES, load_method, load_recipe
from obert.training.schedules import linear_with_rewinds, pruning_events

LEVELS = (0.2, 0.36, 0.488, 0.59, 0.672, 0.738, 0.791, 0.8325, 0.866, 0.893)
QUESTIONS = {"csqa": 9741, "winogrande": 40398, "race": 87866}  # of the training sets
BATCH, UPDATES = {"csqa": 16, "winogrande": 32, "race": 16}, {"csqa": 3000, "winogrande": 23750}
WARMUP = {"csqa": 150, "winogrande": 2375, "race": 500}
STEPS = {task: -(-QUESTIONS[task] // BATCH[task]) for task in QUESTIONS}  # of an epoch
BEFORE = ("omp_before", "random_before", "snip", "rigl", "gmp", "lth")
AFTER = ("omp_after", "random_after", "obert")
RECIPES_OF_METHODS = [
    (name, task) for name in BEFORE + AFTER for task in QUESTIONS if name != "obert" or task == "csqa"
]  # the paper has oBERT on CommonsenseQA alone


@pytest.fixture(autouse=True)
def _in_the_project(root):
    """Recipes are found from the working directory."""


@pytest.mark.parametrize("task", QUESTIONS)
def test_a_dense_run_is_that_of_table_3(task):
    training = load_recipe(f"smc_dense_{task}").training
    steps = round(training.epochs * STEPS[task])
    assert steps == UPDATES.get(task, 3 * STEPS[task])
    rates = [linear_with_rewinds(step, steps, STEPS[task], training.learning_rate) for step in range(steps)]
    assert max(rates) == rates[WARMUP[task]] == 1e-5 and rates[0] == 0 and rates[-1] == pytest.approx(0)
    assert (training.batch_size, training.gradient_accumulation, training.max_grad_norm) == (BATCH[task], 1, 0)
    assert (training.adam_beta2, training.adam_epsilon, training.weight_decay) == (0.98, 1e-6, 0.01)


@pytest.mark.parametrize(("name", "task"), RECIPES_OF_METHODS)
def test_every_method_trains_as_the_dense_run_does(name, task):
    recipe, dense = load_recipe(f"smc_{name}_{task}"), load_recipe(f"smc_dense_{task}").training
    at = recipe.at(0.2)
    unscaled = {"epochs": dense.epochs, "learning_rate": dense.learning_rate}
    assert at.training.model_copy(update=unscaled if name == "lth" else {}) == dense
    assert at.training.learning_rate.model_copy(update={"rewind_epochs": ()}) == dense.learning_rate
    assert recipe.start == ("teacher" if name in AFTER else "pretrained")
    assert recipe.family == "as published" and recipe.distillation is None and len(recipe.methods) == 1
    assert recipe.distribution == ("uniform" if name.startswith("random") else "global")
    assert recipe.scope.encoder and recipe.scope.embeddings
    assert recipe.scope.head == (task != "winogrande")  # lm_head.dense is never masked


@pytest.mark.parametrize(
    ("name", "task"), [each for each in RECIPES_OF_METHODS if each[0] not in ("rigl", "gmp", "lth")]
)
def test_one_shot_methods_prune_once_before_the_first_update(name, task):
    recipe = load_recipe(f"smc_{name}_{task}")
    assert pruning_events(recipe.at(0.893).schedule, STEPS[task], 0.893) == {0: 0.893}


@pytest.mark.parametrize("task", QUESTIONS)
def test_gradual_pruning_has_the_papers_window(task):
    recipe = load_recipe(f"smc_gmp_{task}")
    events = pruning_events(recipe.schedule, STEPS[task], 0.893)
    updates = round(recipe.training.epochs * STEPS[task])
    assert (min(events), max(events)) == pytest.approx((0.1 * updates, 0.8 * updates), abs=1)
    assert events[min(events)] == 0 and events[max(events)] == 0.893


def test_gradual_pruning_of_commonsense_qa_follows_the_codes_curve():
    """The share of the target at an update t of the code: 1 - ((2400 - t) / 2100)^3."""
    events = pruning_events(load_recipe("smc_gmp_csqa").schedule, STEPS["csqa"], 0.8)
    assert list(events) == [300, 800, 1300, 1800, 2300, 2400]
    assert [s / 0.8 for s in events.values()] == pytest.approx([1 - ((2400 - t) / 2100) ** 3 for t in events], abs=1e-4)


@pytest.mark.parametrize("task", QUESTIONS)
def test_lottery_tickets_prune_a_fifth_of_the_survivors_in_each_training(task):
    recipe = load_recipe(f"smc_lth_{task}")
    updates = UPDATES.get(task, 3 * STEPS[task])
    for k, level in enumerate(LEVELS, start=1):
        at = recipe.at(level)
        events = pruning_events(at.schedule, STEPS[task], level)
        assert list(events) == pytest.approx([updates * round_ for round_ in range(1, k + 1)], abs=1)
        assert round(at.training.epochs * STEPS[task]) == pytest.approx(updates * (k + 1), abs=1)
        kept = [1.0, *(1 - sparsity for sparsity in events.values())]
        assert [after / before for before, after in pairwise(kept)] == pytest.approx([0.8] * k, abs=2e-3)
        assert len(at.training.learning_rate.rewind_epochs) == k
    assert load_method("lottery_ticket", recipe.methods["lottery_ticket"], "here").rewind_head


def test_rigl_exchanges_every_500_updates_until_training_ends():
    recipe = load_recipe("smc_rigl_csqa")
    assert pruning_events(recipe.schedule, STEPS["csqa"], 0.5) == dict.fromkeys(range(0, 3001, 500), 0.5)
    assert load_method("rigl", recipe.methods["rigl"], "here").share == 0.5


def test_obert_as_in_smc_bench_takes_a_gradient_of_each_minibatch_of_an_epoch():
    method = load_method("obd", load_recipe("smc_obert_csqa").methods["obd"], "here")
    assert (method.num_gradients, method.gradient_batch_size) == (STEPS["csqa"], BATCH["csqa"])
    assert (method.gradients, method.dampening) == ("minibatch", 1e-7)


def test_every_recipe_of_smc_bench_is_tested_here():
    shared = {f"smc_{name}_{task}" for name in ("before", "after") for task in QUESTIONS}
    found = {path.stem for path in RECIPES.glob("smc_*_*.yaml") if not path.stem.startswith("smc_dense")}
    assert found == shared | {f"smc_{name}_{task}" for name, task in RECIPES_OF_METHODS}
