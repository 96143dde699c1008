"""A method's own interval between pruning events inside a recipe that others share."""

import pytest
import yaml

from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.experiment.recipe import Recipe
from obert.foundation.errors import UserError

SHARED = {
    "description": "Shared.",
    "stage": "downstream",
    "training": {"epochs": 3, "batch_size": 16, "learning_rate": {"initial": 1e-4}},
    "schedule": {"start_epoch": 0, "end_epoch": 2, "every_epochs": 0.5, "initial_sparsity": 0.3},
    "methods": {"magnitude": {}, "movement": {}},
}
OWN = SHARED | {"intervals": {"movement": {"every_steps": 1}}}


def test_the_method_has_its_own_and_the_others_share_one():
    plain, own = Recipe.model_validate(SHARED), Recipe.model_validate(OWN)
    assert own.at(0.9, "magnitude") == plain == own.at(0.9)
    mine = own.at(0.9, "movement")
    assert (mine.schedule.every_steps, mine.schedule.every_epochs) == (1, None)
    assert mine == Recipe.model_validate(
        SHARED | {"schedule": {**SHARED["schedule"], "every_steps": 1, "every_epochs": None}}
    )
    assert "intervals" not in plain.model_dump() and "intervals" not in mine.model_dump()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intervals": {"movement": {}}}, "give every_epochs or every_steps, one of them"),
        ({"intervals": {"movement": {"every_steps": 1, "every_epochs": 1}}}, "give every_epochs or every_steps"),
        ({"intervals": {"movement": {"every_steps": 1}}, "schedule": None, "training": None}, "'intervals' are of"),
        (
            {"intervals": {"movment": {"every_steps": 1}}},
            "unknown pruning method 'movment'.*intervals.*Did you mean 'movement'",
        ),
    ],
)
def test_mistakes_are_named(experiment, changes, said):
    with pytest.raises(UserError, match=said):
        Plan.load(experiment(SHARED | changes))


@pytest.fixture
def experiment(root, tmp_path, monkeypatch):
    """Writes an experiment with one recipe, and its file."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    (tmp_path / "own/recipes").mkdir(parents=True)
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text())
    kept = {name: content[name] for name in ("model", "seeds", "threads", "teacher")}
    kept["tasks"] = {"movie_reviews": content["tasks"]["movie_reviews"]}
    block = {"recipes": ["shared"], "methods": ["magnitude", "movement"], "sparsities": [0.9]}
    kept |= {"name": "own", "description": "", "downstream": [block], "extensions": str(tmp_path / "own")}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(kept))

    def write(recipe):
        (tmp_path / "own/recipes/shared.yaml").write_text(yaml.safe_dump(recipe))
        return path

    return write


def test_the_plan_tells_the_schedules_apart(experiment, capsys):
    """Four events of half an epoch and the first; with masks at each of the steps, one for each."""
    path = experiment(OWN)
    runs = {run.key.method: run for run in Plan.load(path).of_stage("downstream")}
    assert runs["movement"].recipe.schedule.every_steps == 1
    assert (
        runs["magnitude"].specification_hash
        == Plan.load(experiment(SHARED)).find("downstream", method="magnitude").specification_hash
    )
    experiment(OWN)
    assert main(["plan", "--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert "90 (magnitude)" in said and "90 (movement)" in said
