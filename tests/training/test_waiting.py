"""No step between two that are logged waits for the device: no Python code reads a number that is computed there."""

from itertools import pairwise

import pytest
import torch
from transformers import TrainerCallback
from waiting import SEEDS, WATCHED, Waits, Watched, gradual_steps, small, start, waits_of

from obert.experiment.recipe import Training
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.masks.holding import FixedPattern
from obert.models.encoders import prunable_weights
from obert.quantization.fake import FreezeObservers, quantize
from obert.training.gradual import HoldPattern
from obert.training.pending import FETCH_EVERY
from obert.training.trainer import CompressionTrainer


@pytest.fixture(autouse=True)
def _here(root):
    """Sources are relative to the project."""


@pytest.mark.parametrize("name", registry.names("pruning"))
def test_a_step_of_a_method_waits_for_nothing(name, tmp_path):
    assert waits_of(*start(), small(name), tmp_path) == []


@pytest.mark.parametrize("task", ["squad", "mlm"])
def test_a_step_of_a_task_waits_for_nothing(task, tmp_path):
    assert waits_of(*start(task), small("magnitude"), tmp_path) == []


@pytest.mark.parametrize("frozen", [0, 12])
def test_a_quantised_step_waits_for_nothing(frozen, tmp_path):
    network, data = start()
    network = quantize(network)
    waits = Waits()
    trainer = CompressionTrainer(
        network,
        data,
        Training(epochs=1, batch_size=8, learning_rate={"initial": 1e-4}),
        SEEDS,
        tmp_path,
        callbacks=(
            FreezeObservers(frozen),
            HoldPattern(FixedPattern(prunable_weights(network))),
            Watched(waits.__enter__, lambda: waits.__exit__(None, None, None)),
        ),
    )
    trainer.train()
    assert waits.found == []


def test_waits_are_found(tmp_path):
    """A model that reads a number in its forward pass, in each way."""
    network, data = start()
    values, kind = torch.tensor([0.0, 1.0]), type(network)
    for wait in (lambda: float(values[0]), lambda: bool(values.any()), lambda: values[values > 0], values.nonzero):

        class Careless(kind):
            def forward(self, wait=wait, **batch):
                wait()
                return super().forward(**batch)

        network.__class__ = Careless
        assert len(waits_of(network, data, small("magnitude"), tmp_path)) == 2 * len(WATCHED)  # the teacher's too


def test_every_step_has_its_line_though_they_are_fetched_together(tmp_path):
    network, data = start()
    trainer = gradual_steps(network, data, small("magnitude"), tmp_path, lambda: None, lambda: None)
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["sparsity"] for line in lines] == [0.0] * 3 + [0.5] * 9
    assert len({line["loss"] for line in lines}) == 12
    assert all(line["seconds"] > 0 and line["grad_norm"] > 0 for line in lines)


def test_nothing_is_learned_from_the_first_loss_on_that_is_not_finite(tmp_path, monkeypatch):
    """It is told some steps later, of the step where it was, and the weights are those before it."""
    network, data = start()
    weights = []

    class Noted(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            weights.append(network.classifier.weight.detach().clone())

    trainer = CompressionTrainer(
        network,
        data,
        Training(epochs=1, batch_size=8, learning_rate={"initial": 1e-4}),
        SEEDS,
        tmp_path,
        callbacks=(Noted(),),
    )
    losses = type(data.task.head).losses
    monkeypatch.setattr(
        type(data.task.head),
        "losses",
        lambda *given: losses(*given) * (float("inf") if trainer.state.global_step == 4 else 1),
    )
    with pytest.raises(UserError, match="not finite at step 4: all parameters are finite"):
        trainer.train()
    assert len(weights) == FETCH_EVERY
    for before, after in pairwise(weights[:4]):
        assert not torch.equal(before, after)
    assert all(torch.equal(weights[3], after) for after in weights[4:])
    assert len(trainer.curves()) == 4
