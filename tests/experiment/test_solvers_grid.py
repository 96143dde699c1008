"""The grid of `configs/solvers.yaml`: what is compared differs in what it is named for, and in nothing else."""

from collections import Counter
from itertools import product

import pytest

from obert.experiment.plan import Plan
from obert.experiment.recipes import load_method

TASKS = ("sst2", "stsb")
CHANGED = {  # from oBERT with its default solver, by recipe
    "real_equal_terms_papers_solver": {"solver"},
    "real_equal_terms_without_update": {"solver", "scale_prune_update"},
}


@pytest.fixture
def runs(root):
    return list(Plan.load("configs/solvers.yaml").of_stage("downstream"))


def method_of(run):
    return load_method(run.key.method, run.recipe.methods.get(run.key.method, {}), run.key.recipe)


def of(runs, recipe):
    return [run for run in runs if run.key.recipe == recipe]


def test_each_pattern_is_pruned_in_one_shot_by_magnitude_and_every_solver_with_three_seeds(runs):
    one_shot = [run for run in runs if run.recipe.training is None]
    solvers = ((run.key, getattr(method_of(run), "solver", None)) for run in one_shot)
    patterns = {run.key: str(run.recipe.pattern) for run in one_shot}
    found = Counter((key.task, patterns[key], key.sparsity, solver) for key, solver in solvers)
    cells = [("unstructured", 0.7), ("unstructured", 0.8), ("1x4", 0.5), ("2:4", 0.5)]
    rivals = (None, "independent", "joint", "greedy")
    assert found == {(task, *cell, rival): 3 for task, cell, rival in product(TASKS, cells, rivals)}


def test_where_training_follows_all_have_the_terms_of_the_study_of_methods(runs):
    of_methods = Plan.load("configs/real_tasks.yaml").of_stage("downstream")
    terms = {
        run.key.task: run.recipe
        for run in of_methods
        if (run.key.recipe, run.key.method) == ("real_equal_terms", "obert")
    }
    for recipe in ("real_equal_terms", *CHANGED):
        assert Counter(run.key.task for run in of(runs, recipe)) == dict.fromkeys(TASKS, 3)
        for run in of(runs, recipe):
            shared = {"training", "distillation", "schedule", "start", "pattern"}
            assert run.recipe.model_dump(include=shared) == terms[run.key.task].model_dump(include=shared)


@pytest.mark.parametrize("recipe", CHANGED)
def test_a_variant_of_obert_differs_in_what_it_is_named_for(runs, recipe):
    for run in of(runs, recipe):
        plain = next(r for r in of(runs, "real_equal_terms") if r.key.task == run.key.task)
        before, after = (method_of(r).model_dump() for r in (plain, run))
        assert {name for name in after if after[name] != before.get(name, 1.0)} == CHANGED[recipe], run.key
