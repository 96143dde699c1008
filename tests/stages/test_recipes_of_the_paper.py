"""The paper's recipes for Tables 4 and 8, on tiny models with few gradients: what they leave is what they ask for."""

import pandas as pd
import pytest
from architectures import models
from planned import made, results_in
from safetensors.torch import load_file

from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment

DATA = {"source": "tests/data/city_qa", "max_length": 64, "doc_stride": 16, "train_examples": 16, "eval_examples": 16}
FEW = {"num_gradients": 8, "gradient_batch_size": 4}
ONE_SHOT = {name: {"methods": {"obert": FEW}} for name in ("one_shot_2_4", "one_shot_2_4_then_1_epoch")}
MOBILE = {"mlperf_mobilebert": {"layers": [0, 1], "methods": {"obert": FEW}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("paper")


@pytest.fixture
def paper(root, monkeypatch, folder):
    """Blocks of `configs/paper.yaml` on a tiny BERT, and on a tiny MobileBERT, two of whose three layers are kept."""
    results_in(folder, monkeypatch)
    content = {
        "name": "tiny_paper",
        "description": "Recipes of the paper on tiny models.",
        "model": {"source": "tests/data/tiny_bert"},
        "models": {"mobile": {"source": str(models.make("mobilebert", folder / "mobilebert"))}},
        "tasks": {"city_qa": DATA, "mobile": {"kind": "city_qa", **DATA}},
        "teacher": "smoke_finetune",
        "downstream": [
            {"recipes": list(ONE_SHOT), "tasks": ["city_qa"], "sparsities": [0.5]},
            {"recipes": ["mlperf_mobilebert"], "tasks": ["mobile"], "sparsities": [0.5]},
        ],
        "quantize": [{"recipe": "quantize_mlperf_mobilebert", "models": ["mlperf_mobilebert"], "tasks": ["mobile"]}],
        "recipe_overrides": {"city_qa": ONE_SHOT, "mobile": MOBILE},
    }
    plan = Plan.of(Experiment.model_validate(content))
    for teacher in plan.of_stage("teacher"):
        made(teacher)
    return plan


def zeros(run):
    """Where the weights of a run's pruned layers are zero, by the layer's name."""
    weights = load_file(run.folder / "model" / "model.safetensors")
    names = made(run).sparsity.layers
    return {name: weights[name] == 0 for name in weights if name in names or name.removesuffix(".weight") in names}


@pytest.mark.parametrize(
    ("recipe", "method"),
    [("one_shot_2_4", "magnitude"), ("one_shot_2_4", "obert"), ("one_shot_2_4_then_1_epoch", "obert")],
)
def test_two_of_four_weights_are_zero_in_one_shot_and_after_an_epoch(paper, recipe, method):
    run = paper.find("downstream", recipe=recipe, method=method)
    record = made(run)
    assert len(record.details["events"]) == 1 and (run.folder / "curves.csv").exists() == ("epoch" in recipe)
    masks = zeros(run)
    assert masks and all((mask.view(-1, 4).sum(1) == 2).all() for mask in masks.values())


def test_mobilebert_is_cut_pruned_in_blocks_and_quantised(paper):
    pruned, quantized = paper.find("downstream", task="mobile"), paper.find("quantize", task="mobile")
    assert (made(paper.teacher("mobile")).model["layers"], made(pruned).model["layers"]) == (3, 2)
    blocks = [mask.view(-1, 4) for mask in zeros(pruned).values()]
    assert all((block.all(1) == block.any(1)).all() for block in blocks)
    assert sum(int(block.sum()) for block in blocks) / sum(block.numel() for block in blocks) == pytest.approx(
        0.5, abs=0.01
    )
    curves = pd.read_csv(pruned.folder / "curves.csv")
    steps = len(curves) // 30
    last = curves["learning_rate"].to_numpy()[2 * steps - 1 :: 2 * steps]
    assert last == pytest.approx([1e-6, *[5e-5] * 13, 1e-6], rel=0.1)
    assert len(made(pruned).details["events"]) == 14
    assert made(quantized).sparsity.measured >= made(pruned).sparsity.measured
