"""A plain loop and the Trainer's callback prune as the harness does: the same masks and weights, bit by bit."""

import pytest
import torch
from cheap_methods import library_settings

from obert import GradualPruner
from obert.experiment.recipe import Training
from obert.experiment.recipes import load_task
from obert.experiment.schema import Model
from obert.library.choices import checked_method
from obert.masks.patterns import UNSTRUCTURED
from obert.models.encoders import load_pretrained, prunable_weights
from obert.pruning.shared.input_based import BATCH as INPUT_BATCH
from obert.training.features import Features
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner, TrainingFeatures
from obert.training.trainer import CompressionTrainer

SEED, STEPS, BATCH = 5, 6, 8
SCHEDULE = {2: 0.3, 4: 0.6, 5: 0.6}
SETTINGS = library_settings()


@pytest.fixture(scope="module")
def task():
    return load_task("movie_reviews", {"source": "tests/data/movie_reviews", "max_length": 32}, "")


@pytest.fixture(scope="module")
def examples(task):
    return task.load()["train"].select(range(STEPS * BATCH))


@pytest.fixture
def trainer_of(task, examples, tmp_path):
    """Makes the harness's trainer of the tiny model, without dropout; `pruning` makes its callbacks and terms."""

    def make(pruning=lambda network, data: {}):
        torch.manual_seed(0)  # of the head's weights
        network, tokenizer = load_pretrained(Model(source="tests/data/tiny_bert"), task.head, ("0", "1"))
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        data = Features.encode(task, examples, tokenizer)
        training = Training(epochs=1, batch_size=BATCH, learning_rate={"initial": 1e-3})
        seeds = {"data order": 7, "dropout": 0}
        return CompressionTrainer(network, data, training, seeds, tmp_path, **pruning(network, data))

    return make


class FeaturesOfTheEvent:
    """The minibatches that the harness draws at an event, from the seed that torch has then."""

    def __init__(self, data, method):
        self.data, self.method = data, method

    def __iter__(self):
        features = TrainingFeatures(self.data, torch.initial_seed(), torch.device("cpu"))
        each = getattr(self.method, "gradients", "per_example") == "per_example"
        count = getattr(self.method, "num_gradients", self.method.forward_examples()) or BATCH
        size = INPUT_BATCH if self.method.forward_examples() else BATCH
        for draw in range(getattr(self.method, "recomputations", 1)):
            yield from (features.examples if each else features.minibatches)(count, size, draw)


def method_of(name):
    method = checked_method(name, UNSTRUCTURED, SETTINGS[name], "the test")
    return method.model_copy(update={"gradient_batch_size": BATCH} if hasattr(method, "gradient_batch_size") else {})


@pytest.fixture
def in_the_harness(trainer_of):
    """Trains and prunes as the stages do."""

    def run(name):
        gradual = None

        def pruning(network, data):
            nonlocal gradual
            seeds = {"gradients": SEED, "pruning": SEED}
            gradual = GradualPruning(Pruner(network, method_of(name), data, seeds, UNSTRUCTURED), SCHEDULE)
            return {
                "parameter_groups": gradual.pruner.hook.parameter_groups(),
                "penalty": gradual.penalty,
                "callbacks": (gradual,),
            }

        trainer = trainer_of(pruning)
        trainer.train()
        gradual.pruner.hook.finish()
        return trainer.model, gradual.pruner.masks

    return run


def pruner_in(trainer, name):
    method, head = method_of(name), trainer.head

    def loss(network, batch):
        return head.losses(head.forward(network, batch), batch)

    return GradualPruner(
        trainer.model,
        SCHEDULE,
        name,
        optimizer=trainer.create_optimizer(),
        batches=FeaturesOfTheEvent(trainer.data, method),
        loss=loss,
        seed=SEED,
        **SETTINGS[name],
    )


def check_same(found, expected, masks, expected_masks):
    for name, mask in expected_masks.items():
        assert torch.equal(masks[name], mask), name
    assert sum(int((~mask).sum()) for mask in masks.values()) > 0
    own = dict(found.named_parameters())
    for name, value in expected.named_parameters():
        assert torch.equal(own[name], value), name
    weights = torch.cat([w.flatten() for w in prunable_weights(found).values()])
    assert (weights == 0).float().mean().item() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_plain_loop_gives_the_masks_and_weights_of_the_harness(name, trainer_of, in_the_harness):
    expected, expected_masks = in_the_harness(name)
    twin = trainer_of()
    model, head = twin.model, twin.head
    pruner = pruner_in(twin, name)
    scheduler = twin.create_scheduler(STEPS, pruner.optimizer)
    model.train()
    for batch in twin.get_train_dataloader():
        loss = head.losses(head.forward(model, batch), batch).mean() + pruner.penalty()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), twin.args.max_grad_norm)
        pruner.optimizer.step()
        pruner.step()
        scheduler.step()
        model.zero_grad()
    assert pruner.steps == STEPS
    report = pruner.finish()
    check_same(model, expected, report.masks, expected_masks)


@pytest.mark.parametrize("name", ["obert", "soft_movement", "rigl"])
def test_the_callback_gives_the_masks_and_weights_of_the_harness(name, trainer_of, in_the_harness):
    expected, expected_masks = in_the_harness(name)
    twin = trainer_of()
    pruner = pruner_in(twin, name)
    twin.add_callback(pruner.callback())
    twin.train()
    report = pruner.finish()
    check_same(twin.model, expected, report.masks, expected_masks)
