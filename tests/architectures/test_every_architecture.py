"""The contract of an architecture: every stage makes of its tiny random model what the stage is for, in every engine.

No architecture may be left out. What runs in an engine is read from the records that the stages write: an engine that
is there and has not run a model is a failure here, whatever the reason.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from architectures.models import ALIKE, NAMES, WIDTHS, config, make
from planned import at, made, results_in
from safetensors.torch import load_file

from obert.deployment import trial
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.models.architecture import architecture_of
from obert.models.encoders import load_tokenizer, load_trained
from obert.records.record import read_record
from obert.training.features import Features
from obert.training.prediction import predict_logits

ROOT = Path(__file__).parents[2]
TASK = "movie_reviews"
MODEL_TYPES = {
    "albert", "bert", "deberta-v2", "distilbert", "electra", "mobilebert", "modernbert", "mpnet", "roberta",
    "xlm-roberta",
}  # fmt: skip
FEW = {"max_length": 32, "train_examples": 32, "eval_examples": 8}
ENGINES = {"pytorch", "onnxruntime", "openvino"}  # those that any machine has, from this project's requirements
FLOAT_ONLY = {"pytorch"}  # it would time the training's rounding, not a model in 8 bits
TIMING = {"batch_size": 2, "sequence_length": 16, "threads": 1, "warmup": 1, "iterations": 5}
KEPT = (0, 2)
STACKS = {"albert", "bert", "mobilebert", "modernbert"}  # whose layers stand in other places


def of_every_architecture(slow=()):
    """Every architecture's name, some of them only among the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in NAMES]


@dataclass(frozen=True)
class Case:
    """An architecture, its experiment, and runs of it that are made when they are asked for."""

    name: str
    plan: Plan

    def made(self, stage: str, **wanted) -> PlannedRun:
        """A run, with what it is made from."""
        run = self.plan.find(stage, **wanted)
        return self._made(run)

    def _made(self, run: PlannedRun) -> PlannedRun:
        for source in run.made_from:
            self._made(source)
        made(run)
        return run

    def exported(self, run: PlannedRun, stage: str = "export") -> PlannedRun:
        """The export of a run, or its timing."""
        return self._made(at(self.plan, run, stage))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The case of an architecture by name; its runs are there for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("architectures")
        patch.chdir(ROOT)
        results_in(folder / "results", patch)
        patch.setattr(trial, "try_export", lambda *_: None)  # what is exported here is an export of its own
        yield lambda name: Case(name, Plan.of(experiment(name, make(name, folder / name))))


@pytest.fixture
def case(cases, request):
    """The case that a test is parametrised with."""
    return cases(request.param)


def experiment(name: str, model: Path) -> Experiment:
    small = {"obert": {"num_gradients": 8, "gradient_batch_size": 4}}
    upstream = {
        "options": {"source": "tests/data/mlm", **FEW, "train_examples": 40},
        "teacher": "smoke_masked_language_model",
        "grid": [
            {"recipes": ["smoke_upstream"], "methods": ["obert"], "sparsities": [0.8]},
            {"recipes": ["smoke_keep_1_layer"]},
        ],
        "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"]}],
    }
    fewer = "smoke_gradual_fewer_layers"
    return Experiment.model_validate(
        {
            "name": f"contract_{name}",
            "description": "Every stage.",
            "model": {"source": str(model)},
            "tasks": {TASK: {"source": "tests/data/movie_reviews", **FEW}},
            "teacher": "smoke_finetune",
            "upstream": upstream,
            "downstream": [
                {"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.5]},
                {"recipes": ["smoke_gradual"], "methods": ["magnitude", "obert"], "sparsities": [0.8]},
                {"recipes": [fewer], "upstream": "smoke_keep_1_layer", "methods": ["magnitude"], "sparsities": [0.8]},
            ],
            "quantize": [{"recipe": "smoke_quantize", "models": ["smoke_gradual"], "methods": ["magnitude"]}],
            "recipe_overrides": {
                "mlm": {"smoke_keep_1_layer": {"layers": KEPT}, "smoke_upstream": {"methods": small}},
                TASK: {"smoke_gradual": {"methods": small}, "smoke_one_shot": {"methods": small}},
            },
            "benchmark": {
                **TIMING,
                "recipes": ["smoke_one_shot", fewer, "smoke_quantize"],
                "engines": available_engines(),
            },
        }
    )


def available_engines() -> tuple[str, ...]:
    """The engines that run on this machine."""
    return tuple(n for n in registry.names("engines") if not registry.load("engines", n).unavailable_reason())


def encoder_weights(name: str, layers: int | None = None) -> dict[str, int]:
    """Sizes of the linear layers' weights of the tiny model's layers together, by the source papers' descriptions."""
    h, f, given = WIDTHS["hidden_size"], WIDTHS["intermediate_size"], config(name)
    if name == "bert_large":
        h, f = given.hidden_size, given.intermediate_size
    layer = {
        "albert": 4 * h * h + 2 * h * f,
        "modernbert": 3 * h * h + h * h + 2 * h * f + f * h,
        "mobilebert": 3 * h * 16 + (3 * 16 + h) * 16 + 2 * 2 * 16 * f,
    }.get(name, 4 * h * h + 2 * h * f)
    return layer * (1 if name == "albert" else layers or given.num_hidden_layers)


def zeros(run: PlannedRun) -> tuple[int, dict[str, torch.Tensor]]:
    """How many zeros the pruned weights of a saved model have, read from its file; and all of its weights."""
    [file] = (run.folder / "model").glob("*.safetensors")  # of another name where the model is quantised
    weights = load_file(file)
    layers = read_record(run.folder / "metrics.json").sparsity.layers
    return sum(int((weights[name] == 0).sum()) for name in layers), weights


def predictions(run: PlannedRun) -> list:
    """What a run's model, loaded again, predicts."""
    folder, task = run.folder / "model", run.task
    data = Features.encode(task, task.load()["validation"], load_tokenizer(folder))
    logits = predict_logits(load_trained(folder, task.head), data, 4)
    return [line["prediction"] for line in task.predict(logits, data.features, data.examples)]


def recorded(run: PlannedRun) -> list:
    """What a run's model predicted before it was saved."""
    lines = (run.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def test_the_suite_has_every_architecture():
    assert {config(name).model_type for name in NAMES} == MODEL_TYPES
    assert {"deberta_v3", "bert_large"} <= set(NAMES)
    assert set(available_engines()) >= ENGINES


@pytest.mark.parametrize("case", of_every_architecture(slow=ALIKE), indirect=True)
def test_teacher(case):
    run = case.made("teacher")
    before = load_file(Path(case.plan.experiment.model.source) / "model.safetensors")
    after = load_file(run.folder / "model" / "model.safetensors")
    own = [name for name in after if name.partition(".")[2] in before]
    assert any(not torch.equal(after[name], before[name.partition(".")[2]]) for name in own)  # it has trained
    assert len(own) >= 0.8 * len(before)  # what it started from is the model that was given
    assert predictions(run) == recorded(run)


@pytest.mark.parametrize("case", of_every_architecture(slow=ALIKE), indirect=True)
@pytest.mark.parametrize(("recipe", "method"), [("smoke_one_shot", "obert"), ("smoke_gradual", "magnitude")])
def test_pruning(case, recipe, method):
    check_pruned(case, case.made("downstream", recipe=recipe, method=method))


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_gradual_pruning_of_second_order(case):
    check_pruned(case, case.made("downstream", recipe="smoke_gradual", method="obert"))


def check_pruned(case, run, layers=None):
    record, size = made(run), encoder_weights(case.name, layers)
    count, _ = zeros(run)
    assert count == round(run.key.sparsity * size)
    assert sum(layer.size for layer in record.sparsity.layers.values()) == size
    repeats = config(case.name).num_hidden_layers if case.name == "albert" else 1
    assert record.model["deployed_prunable_parameters"] == size * repeats
    assert math.isfinite(record.metrics[record.primary_metric].value)
    assert predictions(run) == recorded(run)


@pytest.mark.parametrize("case", of_every_architecture(slow=set(NAMES) - STACKS), indirect=True)
def test_layers_are_dropped_then_pruned(case):
    run = case.made("downstream", recipe="smoke_gradual_fewer_layers@smoke_keep_1_layer")
    assert made(run).model["layers"] == len(KEPT)
    network = load_trained(run.folder / "model", run.task.head)
    assert architecture_of(network).layers == network.config.num_hidden_layers == len(KEPT)
    count, _ = zeros(run)
    assert count == round(0.8 * encoder_weights(case.name, len(KEPT)))
    assert predictions(run) == recorded(run)


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_zeros_from_upstream_are_held_in_transfer(case):
    source = case.made("upstream", recipe="smoke_upstream", method="obert")
    run = case.made("transfer", method="obert")
    assert zeros(source)[0] == round(0.8 * encoder_weights(case.name))
    before, after = zeros(source)[1], zeros(run)[1]
    layers = made(run).sparsity.layers
    assert layers.keys() == made(source).sparsity.layers.keys()
    for name in layers:
        assert (after[name][before[name] == 0] == 0).all()
    assert predictions(run) == recorded(run)


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_export(case):
    run = case.made("downstream", recipe="smoke_one_shot")
    record = made(case.exported(run))
    assert record.sparsity.layers == made(run).sparsity.layers
    assert record.metrics["parity_max_abs_difference"].value < 1e-5


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_every_engine(case):
    check_engines(case, case.made("downstream", recipe="smoke_one_shot"))


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_export_of_fewer_layers(case):
    run = case.made("downstream", recipe="smoke_gradual_fewer_layers@smoke_keep_1_layer")
    assert made(case.exported(run)).metrics["parity_max_abs_difference"].value < 1e-5
    check_engines(case, run)


@pytest.mark.parametrize("case", of_every_architecture(slow=NAMES), indirect=True)
def test_quantisation_and_every_engine(case):
    run = case.made("quantize")
    before, after = zeros(run.sources["model"])[1], zeros(run)[1]
    layers = made(run).sparsity.layers
    assert layers and sum(layer.size for layer in layers.values()) == encoder_weights(case.name)
    for name in layers:
        assert (after[name][before[name] == 0] == 0).all()
    assert predictions(run) == recorded(run)
    record = made(case.exported(run))
    assert record.details["quantized"]
    assert record.metrics["parity_max_abs_difference"].value < record.details["parity_tolerance"]
    check_engines(case, run, ENGINES - FLOAT_ONLY, examples=1)  # rounding may turn one that is close


def check_engines(case, run, expected=ENGINES, examples=0):
    """Every engine that is there ran the model, and scored in it what the model scored, but for so many examples."""
    record = made(case.exported(run, "benchmark"))
    assert record.details["failed"] == {}
    ran = set(record.details["engines"])
    unfit = set(available_engines()) - ran
    assert unfit == set(record.details["skipped"])
    assert unfit & expected == set(), record.details["skipped"]
    score = made(run).metrics["accuracy"]
    for engine in ran:
        found = record.metrics[f"{engine}_accuracy"]
        assert found.count == score.count == FEW["eval_examples"]
        assert found.value == pytest.approx(score.value, abs=100 * examples / score.count)
