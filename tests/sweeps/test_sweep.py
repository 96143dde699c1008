"""Sweep files: every one valid, every mistake told with file, key and the closest valid name; grids, seeds, recipes."""

from pathlib import Path

import pytest
import yaml

from obert.experiment import recipes
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError
from obert.sweeps.search import load_sweep

SMOKE = Path("configs/sweeps/smoke.yaml")
SPACE = "methods.obert.dampening"
M = "methods.obert.num_gradients"
HARDNESS, TEMPERATURE = "distillation.hardness", "distillation.temperature"


@pytest.fixture
def edited(root, tmp_path):
    """Writes a changed copy of the smoke sweep; what is None is left out."""

    def write(**changes) -> Path:
        content = yaml.safe_load(SMOKE.read_text(encoding="utf-8")) | changes
        path = tmp_path / "edited.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


def test_every_sweep_is_valid(root):
    paths = sorted(Path("configs/sweeps").glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        search = load_sweep(path)
        assert search.sweep.name == path.stem
        assert search.runs and search.sources


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"smapler": "grid"}, ["'smapler'", "edited.yaml", "Did you mean 'sampler'?"]),
        ({"space": {SPACE: {"vlaues": [1]}}}, ["'vlaues'", "space.methods.obert.dampening", "Did you mean 'values'?"]),
        ({"space": {}}, ["space", "at least 1"]),
        ({"space": {SPACE: {}}}, ["give 'values', or 'low' and 'high'"]),
        ({"space": {SPACE: {"values": []}}}, ["give 'values', or 'low' and 'high'"]),
        ({"space": {SPACE: {"values": [1.0, 1.0]}}}, ["a value appears twice"]),
        ({"space": {SPACE: {"values": ["1e-4"]}}}, ["YAML reads 1e-4 as text", "1.0e-4"]),
        ({"space": {SPACE: {"low": 1.0, "high": 2.0}}}, ["space.methods.obert.dampening: a grid needs 'values'"]),
        ({"space": {SPACE: {"low": 2.0, "high": 1.0, "step": 1.0}}}, ["low 2 must be below high 1"]),
        ({"space": {SPACE: {"low": 0.0, "high": 1.0, "step": 1e-12}}}, ["'step' makes more than 10,000 points"]),
        (
            {"space": {f"training.{k}": {"values": list(range(1, 99))} for k in ("batch_size", "epochs", "x")}},
            ["941,192 points are more than the 10,000 of a grid"],
        ),
        (
            {"space": {"methods.obert.dampning": {"values": [1.0]}}},
            ["'dampning'", "space", "Did you mean 'dampening'?"],
        ),
        ({"space": {"mthods.obert.dampening": {"values": [1.0]}}}, ["'mthods'", "Did you mean 'methods'?"]),
        ({"space": {"methods.magnitude.x": {"values": [1.0]}}}, ["method 'magnitude'", "Allowed: obert"]),
        ({"space": {SPACE: {"values": [-1.0]}}}, ["dampening", "greater than or equal to 0"]),
        (
            {"space": {SPACE: {"values": [1e-3], "unless": {"methods.obert.solver": "joint"}}}},
            [f"space.{SPACE}.unless: 'methods.obert.solver' is no key before this one"],
        ),
        (
            {"space": {SPACE: {"values": [1e-3]}, M: {"values": [8, 16], "unless": {SPACE: 9}}}},
            [f"space.{M}.unless: 9 is no value of '{SPACE}'"],
        ),
        ({"space": {"stage": {"values": ["teacher"]}}}, ["unknown key 'stage'", "schedule"]),
        ({"space": {"training.epochs": {"values": [1]}}}, ["learning_rate", "Field required"]),
        ({"sampler": "tpe"}, ["sampler tpe needs the number of 'trials'"]),
        ({"trials": 3}, ["a grid has each point once"]),
        ({"downstream": None}, ["give one block"]),
        ({"experiment": "configs/smok.yaml"}, ["configs/smok.yaml", "configs/smoke.yaml"]),
        ({"seed": 0}, ["seed 0 is one of configs/smoke.yaml's", "Choose another 'seed'"]),
        ({"recipe": "smoke_one_shot"}, ["recipe: 'smoke_one_shot' is what the sweep starts from"]),
        (
            {"downstream": {"recipes": ["smoke_one_sot"], "methods": ["obert"], "sparsities": [0.5]}},
            ["recipe 'smoke_one_sot'", "downstream.recipes", "Did you mean 'smoke_one_shot'?"],
        ),
        (
            {"downstream": {"recipes": ["smoke_one_shot"], "methods": ["oberd"], "sparsities": [0.5]}},
            ["pruning method 'oberd'", "downstream.methods", "Did you mean 'obert'?"],
        ),
        (
            {"downstream": {"recipes": ["smoke_one_shot"], "methods": ["obert", "obd"], "sparsities": [0.5]}},
            ["downstream.methods: a sweep is for one method, found obert, obd"],
        ),
        (
            {"downstream": {"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.5], "tasks": ["qa"]}},
            ["task 'qa'", "downstream.tasks"],
        ),
        (
            {"downstream": {"recipes": ["smoke_gradual"], "methods": ["obert"], "sparsities": [0.5]}},
            ["downstream.sparsities: 0.5 is below the first step"],
        ),
        (
            {
                "stop_early": True,
                "downstream": {"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.5]},
            },
            ["stop_early: only a trial with several sparsities"],
        ),
    ],
)
def test_mistakes_are_named(edited, changes, expected):
    with pytest.raises(UserError) as caught:
        load_sweep(edited(**changes))
    for part in expected:
        assert part in str(caught.value)


def test_tasks_with_other_overrides_are_swept_apart(edited):
    block = {"recipes": ["gradual_1x4"], "methods": ["obert"], "sparsities": [0.8]}
    with pytest.raises(UserError, match=r"downstream\.tasks: .*other recipe_overrides on 'city_qa' than on"):
        load_sweep(edited(experiment="configs/tour.yaml", downstream=block))
    one = load_sweep(edited(experiment="configs/tour.yaml", downstream={**block, "tasks": ["city_qa"]}))
    content = one.recipe_content({"methods.obert.dampening": 1e-5}, "the test")
    assert content["training"] == {"learning_rate": {"initial": 3e-4, "final": 3e-5}}  # as the experiment runs it


def test_a_grid_is_the_product_and_its_last_key_varies_fastest(edited):
    space = {
        "methods.obert.num_gradients": {"low": 8, "high": 32, "step": 8},
        "methods.obert.solver": {"values": ["joint", "greedy"]},
    }
    points = [tuple(point.values()) for point in load_sweep(edited(space=space)).points]
    assert points == [(m, solver) for m in (8, 16, 24, 32) for solver in ("joint", "greedy")]


def test_a_key_that_means_nothing_beside_anothers_value_is_not_tried_there(edited):
    """Without distillation there is one trial, not one a temperature, with the recipe's own temperature."""
    space = {
        HARDNESS: {"values": [0.0, 0.5, 1.0]},
        TEMPERATURE: {"values": [1.0, 5.5], "unless": {HARDNESS: 0.0}},
    }
    block = {"recipes": ["smoke_gradual"], "methods": ["obert"], "sparsities": [0.8], "tasks": ["movie_reviews"]}
    search = load_sweep(edited(space=space, downstream=block))
    pairs = [(point[HARDNESS], point.get(TEMPERATURE)) for point in search.points]
    assert pairs == [(0.0, None), (0.5, 1.0), (0.5, 5.5), (1.0, 1.0), (1.0, 5.5)] and search.budget == 5
    base = load_recipe("smoke_gradual").distillation
    ((run,),) = search.trial(search.points[0])
    assert run.specification["recipe"]["distillation"] == {"hardness": 0.0, "temperature": base.temperature}
    assert search.recipe(search.recipe_content(search.points[0], "the test")).distillation.hardness == 0


def test_a_sweep_without_conditions_keeps_its_trials(root):
    assert all("unless" not in parameter for parameter in load_sweep(SMOKE).sweep.model_dump()["space"].values())


def test_runs_come_by_sparsity_and_only_the_values_differ(root):
    search = load_sweep(SMOKE)
    assert [[run.key.sparsity for run in level] for level in search.levels] == [[0.8], [0.5]]
    values = {SPACE: 1e-3, "methods.obert.num_gradients": 16}
    ((first,), _) = search.trial(values)
    found, expected = first.specification, search.runs[0].specification
    assert found["method"] == expected["method"] | {"dampening": 1e-3, "num_gradients": 16}
    assert {k: v for k, v in found.items() if k != "method"} == {k: v for k, v in expected.items() if k != "method"}
    assert found["task"]["held_out"] == 0.2 and found["key"]["seed"] == 100
    folders = {run.folder for point in search.points for (run,) in search.trial(point)}
    assert len(folders) == len(search.runs) * len(search.points)


def test_a_transferred_model_is_quantised_after_what_it_is_made_from(edited):
    block = {"recipe": "quantize", "models": ["transfer@upstream_equal_terms"], "tasks": ["movie_reviews"]}
    space = {"distillation.hardness": {"values": [0.9, 1.0]}}
    search = load_sweep(edited(experiment="configs/tour.yaml", downstream=None, quantize=block, space=space))
    stages = [run.stage.name for run in search.sources]
    assert stages == ["upstream", "teacher", "transfer", "upstream", "transfer"]  # of oBERT, then of Prune OFA
    assert {(run.stage.upstream, run.key.seed) for run in search.sources} == {(False, 100), (True, 0)}


def test_what_decides_the_trials_is_the_studys_identity(edited):
    base = load_sweep(edited()).identity
    assert load_sweep(edited(description="other", recipe="other")).identity == base
    tpe = {"sampler": "tpe", "trials": 3}
    assert load_sweep(edited(**tpe)).identity == load_sweep(edited(**tpe | {"trials": 9})).identity != base
    for changes in ({"seed": 7}, {"held_out": 0.3}, {"space": {SPACE: {"values": [1e-5]}}}, {"stop_early": True}):
        assert load_sweep(edited(**changes)).identity != base


def test_the_recipe_extends_the_base_and_is_valid_where_recipes_are(root, tmp_path, monkeypatch):
    search = load_sweep(SMOKE)
    content = search.recipe_content({SPACE: 1e-9, "methods.obert.num_gradients": 24}, "the test")
    for file in recipes.RECIPES.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "adopted.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    monkeypatch.setattr("obert.experiment.recipes.RECIPES", tmp_path)
    adopted, base = load_recipe("adopted"), load_recipe("smoke_one_shot")
    assert adopted.methods["obert"] == base.methods["obert"] | {"dampening": 1e-9, "num_gradients": 24}
    assert adopted == search.recipe(content)
    changed = {"methods", "description", "source"}
    assert adopted.model_dump(exclude=changed) == base.model_dump(exclude=changed)


def test_a_recipe_as_published_is_no_more_so_with_other_values(edited):
    block = {"recipes": ["obert_10_epochs"], "sparsities": [0.9], "tasks": ["movie_reviews"]}
    search = load_sweep(edited(experiment="configs/default.yaml", downstream=block))
    assert search.original.definitions.recipe("obert_10_epochs", "movie_reviews").family == "as published"
    assert search.recipe(search.recipe_content({SPACE: 1e-5}, "the test")).family == "equal terms"
