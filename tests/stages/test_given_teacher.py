"""A dense model that has been fine-tuned elsewhere, and is taken with its head."""

import json
import shutil

import pytest
from planned import changed, make
from safetensors.torch import load_file

from obert.experiment.schema import Model
from obert.foundation.errors import UserError
from obert.records.record import read_record

TASK = "movie_reviews"


def given(plan, source):
    """The plan whose dense model is another's."""
    only = {TASK: plan.experiment.tasks[TASK]}
    rest = {"upstream": None, "quantize": (), "sweeps": (), "benchmark": None, "downstream": (), "recipe_overrides": {}}
    return changed(plan, name="given", model=Model(source=str(source)), tasks=only, teacher="given", **rest)


@pytest.fixture
def elsewhere(plan, tmp_path):
    """A copy of a fine-tuned model."""
    shutil.copytree(plan.teacher(TASK).folder / "model", tmp_path / "fine_tuned")
    return tmp_path / "fine_tuned"


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_scores_as_where_it_was_trained_and_keeps_its_weights(plan, elsewhere):
    expected = read_record(plan.teacher(TASK).folder / "metrics.json")
    run = given(plan, elsewhere).teacher(TASK)
    record = make(run)
    assert record.metrics == expected.metrics
    assert record.model["weights_sha256"] == expected.model["weights_sha256"]
    assert record.costs["optimizer_steps"] == 0 and "curves.csv" not in record.files
    own = load_file(run.folder / "model/model.safetensors")
    assert own["classifier.weight"].equal(load_file(elsewhere / "model.safetensors")["classifier.weight"])


def test_labels_without_names_are_taken_by_number(plan, elsewhere, capsys):
    edit(elsewhere, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert make(given(plan, elsewhere).teacher(TASK)).metrics
    assert "by number" not in capsys.readouterr().out


def test_labels_of_other_names_are_taken_by_number_and_told(plan, elsewhere, capsys):
    edit(elsewhere, id2label={"0": "Bad", "1": "Good"}, label2id={"Bad": 0, "Good": 1})
    assert make(given(plan, elsewhere).teacher(TASK)).metrics
    told = capsys.readouterr().out
    assert "calls the task's classes bad, good; they are taken by number for unfavourable, favourable" in told


def test_labels_in_another_order_are_refused(plan, elsewhere):
    names = json.loads((elsewhere / "config.json").read_text())["id2label"]
    swapped = {"0": names["1"].upper(), "1": names["0"].upper()}
    edit(elsewhere, id2label=swapped, label2id={name: int(i) for i, name in swapped.items()})
    with pytest.raises(UserError, match=r"in this order, and the task .* would be taken for others"):
        make(given(plan, elsewhere).teacher(TASK))


def test_a_model_without_a_head_is_refused(plan):
    with pytest.raises(UserError, match=r"the file lacks classifier\.bias, classifier\.weight, which would be random"):
        make(given(plan, "tests/data/tiny_bert").teacher(TASK))
