"""Methods that learn while the model trains, in the Trainer: exact sparsity, and resume that equals."""

import pytest
import torch
from planned import changed, make
from safetensors.torch import load_file
from samples import HEADS
from transformers import TrainerCallback

from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.models.encoders import load_trained, prunable_weights
from obert.pruning import Method
from obert.training.trainer import CompressionTrainer

TASK = "movie_reviews"
# 6 steps an epoch: events before steps 4, 6, 8 and, for weights that may return, 10 and 12; 15 steps
RECIPE = {
    "training": {"epochs": 2.5},
    "schedule": {"start_epoch": 2 / 3, "end_epoch": 4 / 3, "every_epochs": None, "every_steps": 2},
    "methods": {"platon": {"window": 2}, "obert": {"num_gradients": 32, "gradient_batch_size": 16}},
}
LEARNED = ("lottery_ticket", "movement", "platon", "prune_ofa", "rigl", "soft_movement")


def with_recipe(plan, recipe):
    """The smoke experiment with every method, and another recipe."""
    (block, *_) = plan.experiment.downstream
    block = block.model_copy(
        update={
            "recipes": ("smoke_gradual",),
            "methods": "all",
            "sparsities": (0.8,),
            "tasks": (TASK,),
            "upstream": None,
        }
    )
    overrides = {TASK: {"smoke_gradual": recipe}}
    return changed(plan, downstream=(block,), quantize=(), benchmark=None, recipe_overrides=overrides)


@pytest.fixture
def reranking(plan):
    return with_recipe(plan, {**RECIPE, "schedule": {**RECIPE["schedule"], "rerank_until_epoch": 2}})


def run_of(plan, method):
    return plan.find("downstream", method=method, seed=0)


def weights_of(plan, method):
    return load_file(run_of(plan, method).folder / "model" / "model.safetensors")


@pytest.mark.parametrize("method", LEARNED)
def test_final_sparsity_is_exact_on_disk_and_names_are_plain(reranking, method):
    record = make(run_of(reranking, method))
    weights = prunable_weights(
        load_trained(run_of(reranking, method).folder / "model", HEADS["sequence_classification"])
    )
    size = sum(w.numel() for w in weights.values())
    assert sum(int((w == 0).sum()) for w in weights.values()) == round(0.8 * size)
    assert not any("parametrizations" in name for name in weights_of(reranking, method))
    again = [] if method == "lottery_ticket" else [10, 12]  # its weights do not return: nothing to rank anew
    assert [event["step"] for event in record.details["events"]] == [4, 6, 8, *again]
    assert [event["sparsity"] for event in record.details["events"]] == pytest.approx(
        [0.7, 0.7875, 0.8] + [0.8] * len(again)
    )


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 11))])
def test_interrupted_and_run_again_equals_uninterrupted(reranking, interrupted_at, method, step):
    make(run_of(reranking, method))
    expected = weights_of(reranking, method)
    with interrupted_at(step):
        make(run_of(reranking, method))
    make(run_of(reranking, method))
    for name, value in weights_of(reranking, method).items():
        assert torch.equal(value, expected[name]), name


def test_scores_are_trained_at_their_own_rate(reranking, monkeypatch):
    class Rates(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
            seen.append([group["lr"] for group in optimizer.param_groups])

    seen = []
    train = CompressionTrainer.train

    def watched(self, **kwargs):
        self.add_callback(Rates())
        return train(self, **kwargs)

    monkeypatch.setattr(CompressionTrainer, "train", watched)
    make(run_of(reranking, "movement"))
    rate = run_of(reranking, "movement").recipe.training.learning_rate.initial
    assert len(seen) == 15
    for weights, biases, scores in seen:
        assert weights == biases
        assert scores / weights == pytest.approx(1e-2 / rate)


@pytest.mark.parametrize(("method", "steps"), [("movement", 1), ("platon", 10)])
def test_pruning_before_anything_was_learned_is_refused(plan, method, steps):
    early = with_recipe(plan, {"schedule": {"start_epoch": 0}})
    message = f"needs {steps} optimiser steps before the first pruning event, which is at step 0"
    with pytest.raises(UserError, match=message):
        make(run_of(early, method))


def test_every_layer_has_the_target_if_the_recipe_says_so(plan):
    uniform = with_recipe(plan, {**RECIPE, "distribution": "uniform"})
    record = make(run_of(uniform, "magnitude"))
    for layer in record.sparsity.layers.values():
        assert layer.zeros == round(0.8 * layer.size)


def test_a_target_of_nothing_prunes_nothing(plan):
    """The penalty of soft movement goes by the share of the target that is reached."""
    recipe = {"schedule": {"start_epoch": 0.5, "end_epoch": 1, "initial_sparsity": 0.0}, "training": {"epochs": 1.5}}
    dense = with_recipe(plan, recipe)
    (block,) = dense.experiment.downstream
    dense = changed(dense, downstream=(block.model_copy(update={"methods": ("soft_movement",), "sparsities": (0.0,)}),))
    assert make(run_of(dense, "soft_movement")).sparsity.measured == 0


def test_a_schedule_that_comes_to_nothing_is_refused_before_training(plan, monkeypatch):
    """Six steps an epoch: the event of epoch 2.45 falls on step 15, after the last."""
    monkeypatch.setattr(CompressionTrainer, "train", lambda *_, **__: pytest.fail("trained"))
    late = with_recipe(plan, {**RECIPE, "schedule": {**RECIPE["schedule"], "end_epoch": 2.45}})
    with pytest.raises(UserError, match="falls on step 15, after the last of 15 steps"):
        make(run_of(late, "magnitude"))


def test_learned_methods_are_those_with_a_hook_of_their_own():
    methods = {name: registry.load("pruning", name) for name in registry.names("pruning")}
    assert tuple(n for n, m in methods.items() if m.training_hook is not Method.training_hook) == LEARNED
