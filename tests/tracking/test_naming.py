"""Names, tags and descriptions of runs: known before a run starts, and telling runs apart."""

import itertools
import json
import re

import pytest
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.tracking.mirror import mirror_run, synchronize
from obert.tracking.naming import VIEW_TAG, command, description, names, run_name, tags, task_title

GRID = [
    RunKey(stage, task, recipe, seed, method, sparsity)
    for stage, task, recipe, seed, (method, sparsity) in itertools.product(
        ("downstream", "export", "benchmark", "quantize"),
        ("sst2", "squad", "movie_reviews", "my_own"),
        ("gradual", "one_shot", "gradual@upstream"),
        (0, 1),
        ((None, None), ("obert", 0.9), ("obert", 0.8), ("magnitude", 0.9), ("obert", 0.9999)),
    )
]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (RunKey("downstream", "sst2", "gradual", 0, "obert", 0.9), "obert 90 % · SST-2 · gradual · seed 0"),
        (RunKey("teacher", "squad", "finetune", 0), "dense teacher · SQuAD v1.1 · finetune · seed 0"),
        (RunKey("benchmark", "own", "a@b", 3, "magnitude", 0.9999), "magnitude 99.99 % benchmark · own · a@b · seed 3"),
        (RunKey("downstream", "mnli", "gradual", 1, "obert", 0.07), "obert 7 % · MNLI · gradual · seed 1"),
    ],
)
def test_a_name_begins_with_what_differs(key, name):
    assert run_name(key) == name


def test_no_two_runs_have_one_name():
    assert len({run_name(key) for key in GRID}) == len(GRID)


def test_titles_of_tasks_are_short_and_their_own():
    titles = {name: task_title(name) for name in registry.names("tasks")}
    assert len(set(titles.values())) == len(titles)
    assert all(re.fullmatch(r"[\w .-]{3,20}", title) for title in titles.values())
    assert titles["sst2"] == "SST-2" and titles["cola"] == "CoLA"
    assert task_title("answers") == "answers"


def test_a_description_has_the_command_that_makes_the_run_again():
    key = RunKey("downstream", "sst2", "gradual", 0, "obert", 0.9)
    made = description(key, "configs/my file.yaml", "f" * 40)
    assert (
        "\n    python -m obert downstream --config 'configs/my file.yaml' \\\n"
        "      --task sst2 --recipe gradual --method obert --sparsity 0.9 --seed 0\n" in made
    )
    assert "f" * 40 in made
    assert "--config" not in command(key, None)


def test_tags_say_what_is_known_and_nothing_that_is_not():
    key = RunKey("teacher", "sst2", "finetune", 0)
    found = tags(key, family="", spec_hash="abc", environment={"git_commit": None, "git_dirty": False}, config=None)
    assert names(key).items() <= found.items()
    assert found["run_key"] == "teacher/sst2/finetune/dense/seed0"
    assert found["git_dirty"] == "False"
    assert not {"git_commit", "family", "mlflow.source.git.commit"} & set(found)


def test_the_view_of_an_experiment_has_columns_that_its_runs_have(uri, tmp_path):
    client = MlflowClient(uri)
    identifier = client.create_experiment("example", (tmp_path / "artifacts").as_uri())  # without the view, as it was
    mirror_run(write_run(tmp_path / "runs", record("downstream", 80.0, method="obert", sparsity=0.9)), uri)
    tag = client.get_experiment(identifier).tags[VIEW_TAG]
    columns = json.loads(json.loads(tag)["state"])["selectedColumns"]
    (run,) = client.search_runs([identifier])
    there = {f"metrics.`{name}`" for name in run.data.metrics} | {f"params.`{name}`" for name in run.data.params}
    assert set(columns) <= there and columns[:2] == ["metrics.`Result/score`", "metrics.`Result/sparsity`"]
    assert sorted(run.data.metrics)[:2] == ["Result/score", "Result/sparsity"]
    assert (run.data.metrics["Result/score"], run.data.metrics["Result/sparsity"]) == (80.0, 0.9)
    client.set_experiment_tag(identifier, VIEW_TAG, "a user's own")
    write_run(tmp_path / "runs", record("teacher", 90.0))
    synchronize(tmp_path / "runs", uri)
    assert client.get_experiment(identifier).tags[VIEW_TAG] == "a user's own"
