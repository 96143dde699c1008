"""Configuration: every file valid, every mistake told with file, key and the closest valid name."""

from pathlib import Path

import pytest
import yaml

from obert.experiment import reading
from obert.experiment.plan import Plan
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError

SMOKE = Path("configs/smoke.yaml")


@pytest.fixture
def edited(root, tmp_path):
    """Writes a changed copy of the smoke configuration: `edited(seeds=[])`."""

    def write(**changes) -> Path:
        content = reading.merge(yaml.safe_load(SMOKE.read_text()), changes)
        path = tmp_path / "edited.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_every_experiment_in_configs_is_valid(root):
    paths = sorted(Path("configs").glob("*.yaml"))
    experiments = [p for p in paths if p.name != "published.yaml"]
    assert len(experiments) >= 3
    for path in experiments:
        assert Plan.load(path).experiment.name == path.stem


def test_every_recipe_in_configs_is_valid(root):
    paths = sorted(Path("configs/recipes").glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        assert load_recipe(path.stem).description


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seedz": [1]}, ["'seedz'", "edited.yaml", "Did you mean 'seeds'?"]),
        ({"benchmark": {"engnes": []}}, ["'engnes'", "benchmark.engnes", "Did you mean 'engines'?"]),
        ({"tasks": {"movie_review": {"source": "x"}}}, ["task 'movie_review'", "Did you mean 'movie_reviews'?"]),
        ({"tasks": {"movie_reviews": {"max_lenght": 3}}}, ["'max_lenght'", "Did you mean 'max_length'?"]),
        ({"teacher": "smoke_fine_tune"}, ["recipe 'smoke_fine_tune'", "Did you mean 'smoke_finetune'?"]),
        ({"teacher": "smoke_gradual"}, ["is for stage 'downstream'"]),
        ({"benchmark": {"engines": ["onnx"]}}, ["inference engine 'onnx'", "Did you mean 'onnxruntime'?"]),
        ({"sweeps": ["smok"]}, ["sweep 'smok'", "edited.yaml, sweeps", "Did you mean 'smoke'?"]),
        ({"tables": ["leaderbord"]}, ["table 'leaderbord'", "Did you mean 'leaderboard'?"]),
        ({"benchmark": {"recipes": ["gradual"]}}, ["recipe 'gradual'", "smoke_gradual"]),
        ({"seeds": []}, ["seeds"]),
        (
            {"upstream": {"transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstrem"]}]}},
            ["upstream recipe 'smoke_upstrem'", "upstream.transfer.0.upstream", "Did you mean 'smoke_upstream'?"],
        ),
        ({"upstream": {"teacher": "smoke_finetune"}}, ["upstream.teacher", "is for stage 'teacher'"]),
        ({"upstream": {"task": "city_qa"}}, ["upstream.task", "one of the experiment's tasks already"]),
        ({"upstream": {"grid": [{"recipes": ["smoke_upstream"]}]}}, ["upstream.grid.0", "list 'sparsities'"]),
        (
            {"downstream": [{"recipes": ["smoke_gradual_fewer_layers"], "methods": ["obert"], "sparsities": [0.8]}]},
            ["downstream.0.upstream", "needs 'upstream'"],
        ),
        (
            {
                "downstream": [
                    {
                        "recipes": ["smoke_gradual_fewer_layers"],
                        "upstream": "smoke_upstream",
                        "methods": ["obert"],
                        "sparsities": [0.8],
                    }
                ]
            },
            ["dense upstream recipe 'smoke_upstream'", "smoke_keep_1_layer"],
        ),
        (
            {
                "downstream": [
                    {"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.8], "tasks": ["sqad"]}
                ]
            },
            ["task 'sqad'", "downstream.0.tasks"],
        ),
        ({"recipe_overrides": {"mlm": {"smoke_gradual": {}}}}, ["recipe 'smoke_gradual'", "recipe_overrides.mlm"]),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": ["oberd"], "sparsities": [0.5]}]},
            ["pruning method 'oberd'", "downstream.0", "Did you mean 'obert'?"],
        ),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": ["platon"], "sparsities": [0.5]}]},
            ["downstream.0", "'platon' learns its scores in training", "Run it with a gradual recipe"],
        ),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": "all", "sparsities": [1.0]}]},
            ["downstream.0.sparsities.0", "less than 1"],
        ),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": "all", "sparsities": [-0.1]}]},
            ["downstream.0.sparsities.0", "greater than or equal to 0"],
        ),
        (
            {"downstream": [{"recipes": ["smoke_gradual"], "methods": "all", "sparsities": [0.5]}]},
            ["0.5 is below the first step", "initial_sparsity 0.7"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"schedule": {"end_epoch": 9}}}}},
            ["end_epoch 9 must be before training.epochs 3"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"methods": {"obert": {"fisher_blok_size": 4}}}}}},
            ["'fisher_blok_size'", "Did you mean 'fisher_block_size'?"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"methods": {"obert": {"fisher_block_size": 0}}}}}},
            ["fisher_block_size", "greater than 0"],
        ),
        (
            {"recipe_overrides": {"movie_reviews": {"smoke_one_shot": {"distillation": {"hardness": 1}}}}},
            ["one-shot pruning does not train"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_finetune": {"distillation": {"hardness": 1}}}}},
            ["a teacher recipe", "no 'schedule', 'methods' or 'distillation'"],
        ),
        *(
            (
                {"quantize": [{"recipe": "smoke_quantize", "tasks": ["movie_reviews"]} | block]},
                ["quantize.0", *expected],
            )
            for block, expected in (
                ({"models": ["smoke_transfer"]}, ["model 'smoke_transfer'", "Did you mean 'smoke_transfer@smoke_u"]),
                ({"models": ["smoke_quantize@smoke_gradual"]}, ["model 'smoke_quantize@", "smoke_gradual"]),
                ({"models": ["smoke_gradual"], "sparsities": [0.7]}, ["no run of smoke_gradual has these"]),
                ({"models": ["smoke_gradual"], "methods": ["random"]}, ["no run of smoke_gradual has these"]),
                ({"models": ["smoke_gradual"], "seeds": [7]}, ["no run of smoke_gradual has these"]),
            )
        ),
        (
            {
                "upstream": {
                    "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"], "sparsities": [0.5]}]
                }
            },
            ["upstream.transfer.0", "no run of smoke_upstream has these sparsities"],
        ),
        ({"recipe_overrides": {"city_qa": {"gradul": {}}}}, ["recipe 'gradul'", "smoke_gradual"]),
        ({"recipe_overrides": {"city_qa": {"smoke_gradual": [1]}}}, ["recipe_overrides.city_qa.smoke_gradual"]),
        ({"seeds": [-1]}, ["seeds.0", "greater than or equal to 0"]),
        ({"benchmark": {"engines": []}}, ["benchmark.engines", "at least 1 item"]),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": "all", "sparsities": [0.8, 0.80000001]}]},
            ["downstream.0.sparsities.1", "at most 4 decimals"],
        ),
        (
            {"downstream": [{"recipes": ["smoke_one_shot"], "methods": "all", "sparsities": [0.00001]}]},
            ["downstream.0.sparsities.0", "at most 4 decimals"],
        ),
    ],
)
def test_mistake_in_a_configuration_is_named(edited, changes, expected):
    with pytest.raises(UserError) as caught:
        Plan.load(edited(**changes))
    for part in expected:
        assert part in str(caught.value)


def test_duplicate_yaml_key_is_an_error(root, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nname: b\n")
    with pytest.raises(UserError, match="'name' appears twice"):
        Plan.load(path)


@pytest.mark.parametrize("content", [None, b"name: \xff\n"])
def test_what_is_no_text_file_is_named(root, tmp_path, content):
    path = tmp_path / "odd.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.yaml"):
        Plan.load(path)


def test_missing_experiment_file_names_the_existing_ones(root):
    with pytest.raises(UserError, match=r"Did you mean 'configs/smoke\.yaml'"):
        Plan.load("configs/smok.yaml")


def test_recipe_overrides_the_one_it_extends(root):
    parent, child = load_recipe("gradual"), load_recipe("smoke_gradual")
    assert child.training.batch_size == 16
    assert child.training.learning_rate.initial == parent.training.learning_rate.initial
    assert child.distillation == parent.distillation


def test_specification_holds_only_what_the_run_uses(edited):
    base = Plan.load(SMOKE).find("downstream", task="movie_reviews", recipe="smoke_gradual", method="magnitude")

    def fingerprint(**changes):
        return Plan.load(edited(**changes))[base.key].specification_hash

    unrelated = {
        "recipe_overrides": {
            "city_qa": {"smoke_gradual": {"training": {"epochs": 4}}},
            "movie_reviews": {base.key.recipe: {"methods": {"obert": {"dampening": 1e-5}}}},
        },
        "benchmark": {"iterations": 9},
    }
    assert fingerprint(**unrelated) == base.specification_hash
    assert fingerprint(base_seed=1) != base.specification_hash
    assert fingerprint(tasks={"movie_reviews": {"max_length": 16}}) != base.specification_hash


def test_runs_have_distinct_paths_and_are_found_by_their_arguments(root):
    plan = Plan.load(SMOKE)
    assert len({run.key.path for run in plan}) == len(plan)
    for run in plan:
        words = run.key.arguments.split()
        chosen = dict(zip([w.removeprefix("--") for w in words[::2]], words[1::2], strict=True))
        chosen["seed"] = int(chosen["seed"])
        if "sparsity" in chosen:
            chosen["sparsity"] = float(chosen["sparsity"])
        assert plan.find(run.stage.name, **chosen) is run


def test_ambiguous_selection_lists_the_candidates(root):
    with pytest.raises(UserError, match="2 runs match; name one of them") as caught:
        Plan.load(SMOKE).find("downstream", task="city_qa")
    assert "--task city_qa --recipe smoke_gradual --method magnitude --sparsity 0.8 --seed 0" in str(caught.value)
