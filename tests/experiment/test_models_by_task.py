"""Several encoders and teachers in one experiment: each task may have its own; upstream models are the experiment's."""

import pytest

from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError

OTHER = {"source": "somebody/large"}


def planned(**changes):
    content = {
        "name": "several",
        "description": "Two encoders.",
        "model": {"source": "tests/data/tiny_bert"},
        "models": {"city_qa": OTHER},
        "tasks": {"movie_reviews": {}, "city_qa": {}},
        "teacher": "smoke_finetune",
        "downstream": [{"recipes": ["smoke_gradual"], "methods": ["magnitude"], "sparsities": [0.8]}],
        "upstream": {
            "teacher": "smoke_masked_language_model",
            "grid": [{"recipes": ["smoke_upstream"], "methods": ["obert"], "sparsities": [0.8]}],
            "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"]}],
        },
    }
    return Plan.of(Experiment.model_validate({**content, **changes}))


def test_each_task_starts_from_its_own_encoder(root):
    for run in planned():
        expected = "somebody/large" if run.key.task == "city_qa" else "tests/data/tiny_bert"
        assert run.model.source == run.specification["model"]["source"] == expected


def test_upstream_models_go_to_tasks_of_their_own_encoder(root):
    assert {run.key.task for run in planned().of_stage("transfer")} == {"movie_reviews"}
    upstream = planned().experiment.upstream.model_dump()
    upstream["transfer"] = [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"], "tasks": ["city_qa"]}]
    with pytest.raises(UserError, match=r"upstream.transfer.0.tasks: 'city_qa' has an encoder of its own"):
        planned(upstream=upstream)


def test_the_pretrained_encoder_goes_to_every_task(root):
    upstream = planned().experiment.upstream.model_dump()
    upstream["transfer"] = [{"recipe": "smoke_transfer", "upstream": ["pretrained"]}]
    assert {run.key.task for run in planned(upstream=upstream).of_stage("transfer")} == {"movie_reviews", "city_qa"}


def test_the_pretrained_encoder_needs_no_upstream_teacher(root):
    """Dense models by several seeds, say; nothing is trained before any task."""
    plan = planned(upstream={"transfer": [{"recipe": "smoke_transfer", "upstream": ["pretrained"]}]}, seeds=[0, 1])
    assert {(run.key.task, run.key.seed) for run in plan.of_stage("transfer")} == {
        (task, seed) for task in ("movie_reviews", "city_qa") for seed in (0, 1)
    }
    assert not plan.of_stage("upstream_teacher", "upstream")
    with pytest.raises(ValueError, match="name its recipe in 'teacher'"):
        planned(upstream={"grid": [{"recipes": ["smoke_keep_1_layer"]}]})


def test_each_task_has_the_teacher_of_its_own_recipe(root):
    """The others keep the specification that they have without it."""
    plan, usual = planned(teachers={"city_qa": "finetune"}), planned()
    recipes = {"movie_reviews": "smoke_finetune", "city_qa": "finetune"}
    assert {run.key.task: run.key.recipe for run in plan.of_stage("teacher")} == recipes
    for run in plan.of_stage("downstream"):
        assert run.sources["teacher"].key.recipe == recipes[run.key.task]
        assert run.specification == usual[run.key].specification


def test_a_teacher_for_another_stage_is_refused(root):
    with pytest.raises(UserError, match=r"teachers\.city_qa: recipe 'smoke_gradual' is for stage 'downstream'"):
        planned(teachers={"city_qa": "smoke_gradual"})


@pytest.mark.parametrize("key", ["models", "teachers"])
def test_an_encoder_or_teacher_for_a_task_that_is_not_there_is_refused(root, key):
    with pytest.raises(ValueError, match=rf"{key}\.squad: there is no such task"):
        planned(**{key: {"squad": OTHER if key == "models" else "finetune"}})


def test_a_scenario_may_be_for_some_tasks(root):
    """Models of the other tasks keep the specification that they have without it."""
    timed = {"recipes": ["smoke_gradual"], "batch_size": 2}
    further = {"batch_size": 128, "sequence_length": 384, "threads": 1}
    one = planned(benchmark={**timed, "also": [{**further, "tasks": ["city_qa"]}]})
    every, none = planned(benchmark={**timed, "also": [further]}), planned(benchmark=timed)
    for run in one.of_stage("benchmark"):
        alike = every if run.key.task == "city_qa" else none
        assert run.specification == alike[run.key].specification
    with pytest.raises(ValueError, match=r"benchmark.also.0.tasks: there is no task 'squad'"):
        planned(benchmark={**timed, "also": [{**further, "tasks": ["squad"]}]})
