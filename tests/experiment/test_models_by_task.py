"""Several encoders in one experiment: each task may have its own, and upstream models are of the experiment's."""

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


def test_an_encoder_for_a_task_that_is_not_there_is_refused(root):
    with pytest.raises(ValueError, match=r"models\.squad: there is no such task"):
        planned(models={"squad": OTHER})


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
