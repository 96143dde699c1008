"""Which weights are pruned, and the three sparsities of a record: of the encoder, of the scope, of the whole model."""

import re

import pytest
import torch
from architectures.models import NAMES, make
from planned import make as run_of
from planned import results_in
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from obert.experiment.plan import Plan
from obert.experiment.recipe import Recipe, Scope
from obert.experiment.recipes import load_task
from obert.experiment.schema import Experiment, Model
from obert.foundation.errors import UserError
from obert.masks.counts import Sparsity
from obert.masks.patterns import UNSTRUCTURED, Pattern
from obert.models.architecture import architecture_of
from obert.models.encoders import load_pretrained, measured_sparsity
from obert.pruning.magnitude import Magnitude
from obert.pruning.movement import Movement
from obert.pruning.obd import OptimalBrainDamage
from obert.pruning.rigl import RigL
from obert.records.record import read_record
from obert.training.features import Features
from obert.training.pruner import Pruner

REVIEWS = {"source": "tests/data/movie_reviews", "max_length": 32, "train_examples": 32, "eval_examples": 8}
MLM = {"source": "tests/data/mlm", "max_length": 32, "train_examples": 40, "eval_examples": 8}
ENCODER = re.compile(r".*encoder\.layer\..*(query|key|value|dense)\.weight")
EMBEDDINGS = re.compile(r".*(embeddings|embeddings_project)\.weight")
SMALL = {"num_gradients": 6, "gradient_batch_size": 3}


@pytest.fixture
def plan_of(root, monkeypatch, tmp_path):
    """The plan of an experiment on a tiny model, its dense teacher made."""
    results_in(tmp_path / "results", monkeypatch)
    make("electra", tmp_path / "model")

    def plan(overrides, upstream=None, **content):
        experiment = {
            "name": "scope",
            "description": "Scopes.",
            "model": {"source": str(tmp_path / "model")},
            "tasks": {"movie_reviews": REVIEWS},
            "teacher": "smoke_finetune",
            "recipe_overrides": overrides,
            **content,
        }
        made = Plan.of(Experiment.model_validate(experiment | ({"upstream": upstream} if upstream else {})))
        run_of(made.teacher("movie_reviews"))
        return made

    return plan


def zeros_by_part(folder):
    """Zeros and size of each part of a saved model, its weights told apart by their names."""
    parts = {"encoder": [0, 0], "embeddings": [0, 0], "head": [0, 0]}
    for name, weight in load_file(folder / "model.safetensors").items():
        if weight.dim() != 2:
            continue
        part = "encoder" if ENCODER.fullmatch(name) else "embeddings" if EMBEDDINGS.fullmatch(name) else "head"
        parts[part][0] += int((weight == 0).sum())
        parts[part][1] += weight.numel()
    return parts


SCOPES = [
    {"encoder": True},
    {"embeddings": True},
    {"head": True},
    {"embeddings": True, "head": True},
    {"encoder": False, "embeddings": True},
]


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: "+".join(scope))
def test_the_count_is_exact_in_scope_and_nothing_is_pruned_outside(plan_of, scope):
    block = {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.6]}
    plan = plan_of({"movie_reviews": {"smoke_one_shot": {"scope": scope}}}, downstream=[block])
    run = plan.find("downstream")
    record = run_of(run)
    chosen = Scope(**scope).parts
    before, after = (zeros_by_part(r.folder / "model") for r in (plan.teacher("movie_reviews"), run))
    zeros, size = (sum(after[part][i] for part in chosen) for i in (0, 1))
    assert zeros == round(0.6 * size)
    assert all(after[part] == before[part] for part in after if part not in chosen)

    sparsity = record.sparsity
    assert sparsity.measured == zeros / size
    assert sparsity.encoder == after["encoder"][0] / after["encoder"][1]
    assert sparsity.whole_model == sum(z for z, _ in after.values()) / sum(n for _, n in after.values())
    assert {part: [x.zeros, x.size] for part, x in sparsity.parts.items()} == after
    assert record.model["prunable_parameters"] == size
    assert read_record(run.folder / "metrics.json") == record


CUTS = [
    {"embeddings": 0.3},
    {"embeddings": "own", "head": 0.25},
    {"encoder": 0.8, "embeddings": True, "head": True},
    {"encoder": "own", "embeddings": "own"},
]


@pytest.mark.parametrize(("scope", "recipe"), [(s, "smoke_one_shot") for s in CUTS] + [(CUTS[1], "smoke_gradual")])
def test_parts_with_a_cut_of_their_own_are_counted_exactly_one_by_one(plan_of, scope, recipe):
    overrides = {"scope": scope, "training": {"freeze_embeddings": False}} if recipe == "smoke_gradual" else {}
    block = {"recipes": [recipe], "methods": ["magnitude"], "sparsities": [0.8]}
    plan = plan_of({"movie_reviews": {recipe: {"scope": scope} | overrides}}, downstream=[block])
    run = plan.find("downstream")
    record = run_of(run)
    after = zeros_by_part(run.folder / "model")
    values = {"encoder": True} | scope
    shared = [part for part, value in values.items() if value is True]
    assert sum(after[part][0] for part in shared) == round(0.8 * sum(after[part][1] for part in shared))
    for part, value in values.items():
        if value is not True:
            target = 0.8 if value == "own" else value
            assert after[part][0] == round(target * after[part][1]), part
    for part in after.keys() - values.keys():
        before = zeros_by_part(plan.teacher("movie_reviews").folder / "model")
        assert after[part][0] <= before[part][0]  # the padding token's row, which may be trained

    own = {part: value for part, value in scope.items() if isinstance(value, float)}
    assert record.sparsity.targets == own and record.sparsity.target == 0.8
    assert {part: [x.zeros, x.size] for part, x in record.sparsity.parts.items()} == after
    assert read_record(run.folder / "metrics.json") == record
    for event in record.details["events"]:
        expected = {part: pytest.approx(target * event["sparsity"] / 0.8) for part, target in own.items()}
        assert event.get("targets", {}) == expected
    if recipe == "smoke_gradual":
        assert len(record.details["events"]) > 1


def test_an_own_cut_at_the_runs_sparsity_leaves_the_encoders_as_it_is_alone(plan_of):
    """What is compared at equal encoder sparsity has the same zeros in the encoder."""
    saved = []
    for scope in ({"embeddings": "own", "head": "own"}, {}):
        block = {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.6]}
        run = plan_of({"movie_reviews": {"smoke_one_shot": {"scope": scope}}}, downstream=[block]).find("downstream")
        run_of(run)
        saved.append(load_file(run.folder / "model" / "model.safetensors"))
    for name, weight in saved[0].items():
        if ENCODER.fullmatch(name):
            assert torch.equal(weight, saved[1][name]), name


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"embeddings": 1}, "found 1; allowed are false, true"),
        ({"embeddings": 1.5}, "found 1.5"),
        ({"head": 0}, "0 prunes nothing: write false"),
        ({"head": -0.5}, "found -0.5"),
        ({"embeddings": float("nan")}, "found nan"),
        ({"embeddings": "half"}, "found 'half'"),
        ({"encoder": 0.9, "embeddings": 0.5}, "no part is pruned to the run's sparsity"),
    ],
)
def test_targets_that_make_no_sense_are_refused(plan_of, scope, expected):
    block = {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.6]}
    with pytest.raises(UserError, match="smoke_one_shot") as refused:
        plan_of({"movie_reviews": {"smoke_one_shot": {"scope": scope}}}, downstream=[block])
    assert expected in str(refused.value)
    assert "scope" in str(refused.value)


def test_a_target_above_what_the_pattern_allows_is_refused_in_the_plan(plan_of):
    block = {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.5]}
    overrides = {"movie_reviews": {"smoke_one_shot": {"pattern": "2:4", "scope": {"embeddings": 0.6}}}}
    with pytest.raises(UserError, match=r"scope.embeddings 0.6 is more than pattern 2:4 allows \(0.5\)"):
        plan_of(overrides, downstream=[block])


def test_a_pattern_that_does_not_fit_a_table_is_refused_before_training(root, tmp_path):
    network, data = data_of(tmp_path, "bert", "mlm", MLM)
    rows = network.get_input_embeddings().num_embeddings
    assert rows % 16
    with pytest.raises(UserError, match=r"pattern 16x1.*word_embeddings.*no multiple of 16"):
        Pruner(network, Magnitude(), data, {}, Pattern.parse("16x1"), scope=Scope(embeddings="own"))


def test_whole_model_sparsity_is_the_encoders_share_where_the_rest_is_dense(plan_of):
    block = {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.6]}
    plan = plan_of({}, downstream=[block])
    record = run_of(plan.find("downstream"))
    parts = record.sparsity.parts
    dense = sum(part.zeros for name, part in parts.items() if name != "encoder")  # the padding token's row
    assert dense == 16
    assert record.sparsity.encoder == record.sparsity.measured
    assert record.sparsity.whole_model == (parts["encoder"].zeros + dense) / sum(part.size for part in parts.values())


def test_zeros_of_embeddings_are_held_in_training_and_in_transfer(plan_of):
    scope = {"embeddings": True, "head": True}
    upstream = {
        "options": MLM,
        "teacher": "smoke_masked_language_model",
        "grid": [{"recipes": ["smoke_upstream"], "methods": ["magnitude"], "sparsities": [0.8]}],
        "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"]}],
    }
    plan = plan_of({"mlm": {"smoke_upstream": {"scope": scope}}}, upstream)
    for run in plan.of_stage("upstream_teacher"):
        run_of(run)
    source, run = plan.find("upstream"), plan.find("transfer")
    pruned, transferred = run_of(source), run_of(run)
    total = pruned.sparsity.parts
    assert sum(part.zeros for part in total.values()) == round(0.8 * sum(part.size for part in total.values()))
    before, after = (load_file(r.folder / "model" / "model.safetensors") for r in (source, run))
    held = [name for name, weight in before.items() if weight.dim() == 2 and name in after]
    assert any(EMBEDDINGS.fullmatch(name) for name in held)
    for name in held:
        assert (after[name][before[name] == 0] == 0).all(), name
    trained = next(name for name in held if EMBEDDINGS.fullmatch(name))
    assert not torch.equal(before[trained], after[trained])
    parts = transferred.sparsity.parts  # the task's head is new, and nothing has pruned it
    assert {name: parts[name] for name in ("encoder", "embeddings")} == {
        name: total[name] for name in ("encoder", "embeddings")
    }
    assert parts["head"].zeros == 0
    zeros, size = (
        sum(getattr(parts[part], field) for part in ("encoder", "embeddings")) for field in ("zeros", "size")
    )
    assert transferred.sparsity.measured == zeros / size


@pytest.mark.parametrize("method", ["obert", "obd"])
def test_a_method_that_needs_inputs_refuses_embeddings_in_the_plan(plan_of, method):
    overrides = {"scope": {"embeddings": True}, "methods": {method: {"gradients": "per_example"}}}
    block = {"recipes": ["smoke_one_shot"], "methods": [method], "sparsities": [0.6]}
    with pytest.raises(
        UserError, match=rf"downstream.*smoke_one_shot.*method '{method}' cannot take example by example"
    ):
        plan_of({"movie_reviews": {"smoke_one_shot": overrides}}, downstream=[block])


@pytest.mark.parametrize("method", ["optimal_brain_compression", "sparsegpt", "wanda"])
def test_a_method_that_looks_at_inputs_refuses_embeddings_in_the_plan(plan_of, method):
    block = {"recipes": ["smoke_one_shot"], "methods": [method], "sparsities": [0.6]}
    with pytest.raises(UserError, match=rf"smoke_one_shot.*method '{method}' looks at what linear layers are given"):
        plan_of({"movie_reviews": {"smoke_one_shot": {"scope": {"embeddings": True}}}}, downstream=[block])


@pytest.mark.parametrize("method", ["obert", "obd", "mfac"])
def test_gradients_of_minibatches_prune_embeddings(plan_of, method):
    parameters = {"gradients": "minibatch", "num_gradients": 4, "gradient_batch_size": 8}
    overrides = {"scope": {"embeddings": True, "head": True}, "methods": {method: parameters}}
    block = {"recipes": ["smoke_one_shot"], "methods": [method], "sparsities": [0.6]}
    run = plan_of({"movie_reviews": {"smoke_one_shot": overrides}}, downstream=[block]).find("downstream")
    record = run_of(run)
    after = zeros_by_part(run.folder / "model")
    assert sum(z for z, _ in after.values()) == round(0.6 * sum(n for _, n in after.values()))
    assert record.sparsity.whole_model == record.sparsity.measured


def data_of(folder, name, task, options):
    make(name, folder)
    loaded = load_task(task, options, "here")
    network, tokenizer = load_pretrained(Model(source=str(folder)), loaded.head, ("0", "1"))
    return network.eval(), Features.encode(loaded, loaded.load()["train"], tokenizer)


def test_a_tied_weight_behind_a_mask_is_refused(root, tmp_path):
    network, data = data_of(tmp_path, "bert", "mlm", MLM)
    seeds = {"gradients": 0, "pruning": 0}
    with pytest.raises(UserError, match=r"Movement.*'bert.embeddings.word_embeddings.weight' is the weight of two"):
        Pruner(network, Movement(), data, seeds, UNSTRUCTURED, scope=Scope(embeddings=True))
    network, data = data_of(tmp_path, "bert", "mlm", MLM)
    pruner = Pruner(network, Magnitude(), data, seeds, UNSTRUCTURED, scope=Scope(embeddings=True))
    pruner.prune(0.5)
    tied = network.get_input_embeddings().weight
    assert network.get_output_embeddings().weight is tied
    parts = {"embeddings": "own", "head": 0.3}
    pruner = Pruner(network, Magnitude(), data, seeds, UNSTRUCTURED, scope=Scope(**parts))
    pruner.prune(0.6)
    counted = measured_sparsity(network, Scope(**parts), 0.6).parts
    matrices = {id(p): p for p in network.parameters() if p.dim() == 2}  # each tensor once
    assert sum(part.size for part in counted.values()) == sum(p.numel() for p in matrices.values())
    assert counted["embeddings"].zeros == round(0.6 * counted["embeddings"].size)
    assert counted["head"].zeros == round(0.3 * counted["head"].size)
    network, data = data_of(tmp_path, "bert", "mlm", MLM)
    Pruner(network, Movement(), data, seeds, UNSTRUCTURED, scope=Scope(head=True))
    network, data = data_of(tmp_path, "bert", "mlm", MLM)
    pruner = Pruner(network, RigL(), data, seeds, UNSTRUCTURED, scope=Scope(embeddings=True))
    for _ in range(2):
        pruner.prune(0.5)


@pytest.mark.parametrize("name", ["deberta_v3", "albert", "modernbert", "mobilebert"])
def test_gradients_of_examples_are_those_of_each_example_alone(root, tmp_path, name, monkeypatch):
    """DeBERTa's layers also project relative positions, one for all examples; ALBERT's are called several times."""
    network, data = data_of(tmp_path, name, "movie_reviews", REVIEWS)
    drawn = {}

    def keep(self, context):
        for weight, gradients in self.draw(context, context.layers):
            drawn.setdefault(weight, []).append(gradients.rows(0, context.layers[weight].out_features))
        return {n: w.abs() for n, w in context.weights.items()}

    monkeypatch.setattr(OptimalBrainDamage, "score", keep)
    pruner = Pruner(network, OptimalBrainDamage(**SMALL), data, {"gradients": 0, "pruning": 0}, UNSTRUCTURED)
    generator = torch.Generator().manual_seed(0)
    (batch,) = data.batches([6], generator, by_length=True)
    losses = data.task.head.losses(data.task.head.forward(network, batch), batch)
    weights = {weight: layer.weight for weight, layer in pruner.layers.items()}
    expected = [
        dict(zip(weights, torch.autograd.grad(x, list(weights.values()), retain_graph=True), strict=True))
        for x in losses
    ]
    pruner.prune(0.0)
    for weight, parts in drawn.items():
        found = torch.cat(parts)
        assert found.abs().max() > 0
        torch.testing.assert_close(found, torch.stack([e[weight].flatten() for e in expected]), rtol=1e-3, atol=1e-7)
    assert drawn.keys() == weights.keys()


def test_a_recipe_without_a_scope_says_nothing_of_it():
    recipe = {"description": "d", "stage": "downstream", "start": "teacher"}
    assert "scope" not in Recipe.model_validate(recipe).model_dump(mode="json")
    wide = Recipe.model_validate(recipe | {"scope": {"head": True}})
    assert wide.model_dump(mode="json")["scope"] == {"encoder": True, "embeddings": False, "head": True}
    with pytest.raises(ValueError, match="nothing would be pruned"):
        Recipe.model_validate(recipe | {"scope": {"encoder": False}})
    frozen = {"scope": {"embeddings": True}, "training": {"epochs": 1, "freeze_embeddings": True}}
    with pytest.raises(ValueError, match="set one of them"):
        Recipe.model_validate(
            recipe | frozen | {"training": {**frozen["training"], "batch_size": 1, "learning_rate": {"initial": 1}}}
        )


def test_a_recipe_that_does_not_prune_has_no_scope(plan_of):
    with pytest.raises(UserError, match="'scope' belongs to recipes that prune"):
        plan_of({"movie_reviews": {"smoke_finetune": {"scope": {"head": True}}}})


def test_records_of_before_are_read():
    old = '{"target": 0.5, "measured": 0.5, "layers": {"a": {"zeros": 1, "size": 2}}}'
    assert Sparsity.model_validate_json(old).model_dump_json() == old.replace(" ", "")


def test_embeddings_that_are_frozen_are_the_models_own(root, tmp_path):
    """Freezing follows the structure: the module that holds the table of tokens, in every architecture."""
    for name in NAMES:
        network = AutoModelForSequenceClassification.from_pretrained(make(name, tmp_path / name))
        embeddings = architecture_of(network).embeddings
        assert network.get_input_embeddings() in set(embeddings.modules())
        assert not set(architecture_of(network).stack.modules()) & set(embeddings.modules())
