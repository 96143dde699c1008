"""What training relies on in the Hugging Face Trainer: the data it is given, and where checkpoints are."""

import random

import pytest
import torch
from transformers import TrainerCallback

from obert.experiment.recipe import Training
from obert.experiment.recipes import load_task
from obert.experiment.schema import Model
from obert.models.encoders import load_pretrained
from obert.training.checkpoints import checkpoint_of, latest_checkpoint
from obert.training.data_order import EpochSeededSampler
from obert.training.features import Features
from obert.training.trainer import CompressionTrainer

LENGTHS = [(7 * i * i + 3 * i) % 23 + 4 for i in range(24)]


# The orders of transformers 5.23's `LengthGroupedSampler(3, lengths=LENGTHS, generator=Generator().manual_seed(seed +
# epoch))`, on which every result so far was trained.
@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (0, 0, [18, 2, 12, 20, 5, 3, 1, 4, 19, 17, 22, 13, 7, 9, 10, 8, 11, 16, 21, 6, 14, 15, 0, 23]),
        (0, 3, [21, 9, 10, 4, 20, 3, 1, 12, 5, 11, 13, 16, 7, 6, 19, 17, 22, 23, 18, 8, 14, 2, 15, 0]),
        (11, 0, [18, 8, 14, 4, 5, 17, 6, 12, 11, 22, 16, 0, 9, 7, 2, 3, 13, 23, 21, 10, 15, 1, 20, 19]),
    ],
)
def test_order_is_the_trainers_own(seed, epoch, expected):
    order = EpochSeededSampler(3, LENGTHS, seed)
    order.set_epoch(epoch)
    assert list(order) == expected


@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (7, 16), (1000, 16), (5000, 3)])
def test_order_has_every_feature_once_the_longest_first_and_little_padding(count, batch_size):
    draw = random.Random(0)
    lengths = [draw.randint(1, 128) for _ in range(count)]
    sampler = EpochSeededSampler(batch_size, lengths, 5)
    order = list(sampler)
    assert sorted(order) == list(range(count))
    assert lengths[order[0]] == max(lengths)
    assert list(sampler) == order
    padded = sum(
        batch_size * max(lengths[i] for i in order[start : start + batch_size]) for start in range(0, count, batch_size)
    )
    if count >= 1000:
        assert padded < 1.1 * sum(lengths)
        sampler.set_epoch(1)
        assert list(sampler) != order


class Watched(TrainerCallback):
    """Keeps what a checkpoint's folder holds when it has been written."""

    def __init__(self):
        self.found = {}

    def on_save(self, args, state, control, **kwargs):
        folder = checkpoint_of(args, state)
        self.found[state.global_step] = {path.name for path in folder.iterdir()}


@pytest.fixture
def trainer_of(root, tmp_path):
    """Makes a Trainer of the smoke model, without dropout, for three steps of sixteen features."""
    task = load_task("movie_reviews", {"source": "tests/data/movie_reviews", "max_length": 32}, "")

    def make(batch_size, accumulation, checkpoint_steps=None):
        torch.manual_seed(0)  # of the head's weights
        network, tokenizer = load_pretrained(Model(source="tests/data/tiny_bert"), task.head, ("0", "1"))
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        data = Features.encode(task, task.load()["train"], tokenizer)
        training = Training(
            epochs=0.5,
            batch_size=batch_size,
            gradient_accumulation=accumulation,
            learning_rate={"initial": 1e-4},
            checkpoint_steps=checkpoint_steps,
        )
        seeds = {"data order": 7, "dropout": 0}
        return CompressionTrainer(network, data, training, seeds, tmp_path, callbacks=(Watched(),))

    return make


def test_training_meets_the_batches_of_the_order(trainer_of, monkeypatch):
    trainer, met = trainer_of(8, 2), []
    inner = trainer.compute_loss

    def compute_loss(model, inputs, **options):
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        met.extend(tokens[mask.bool()].tolist() for tokens, mask in rows)
        return inner(model, inputs, **options)

    monkeypatch.setattr(trainer, "compute_loss", compute_loss)
    trainer.train()
    features = trainer.data.features
    order = list(EpochSeededSampler(16, list(features["length"]), 7))
    assert met == [features["input_ids"][i] for i in order[: 3 * 16]]


def test_checkpoints_are_where_they_are_looked_for(trainer_of, tmp_path):
    trainer = trainer_of(8, 2, checkpoint_steps=1)
    trainer.train()
    watched = next(c for c in trainer.callback_handler.callbacks if isinstance(c, Watched))
    assert list(watched.found) == [1, 2, 3]
    assert all({"model.safetensors", "optimizer.pt", "trainer_state.json"} <= names for names in watched.found.values())
    assert latest_checkpoint(tmp_path, "of another run") is None  # found, and refused for want of a marker
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_accumulated_gradients_are_those_of_the_whole_batch(trainer_of):
    whole, parts = trainer_of(16, 1), trainer_of(4, 4)
    for trainer in (whole, parts):
        trainer.train()
    logged = [[step for step in t.state.log_history if "grad_norm" in step] for t in (whole, parts)]
    assert len(logged[0]) == len(logged[1]) == 3
    for one, several in zip(*logged, strict=True):
        assert several["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert several["loss"] == pytest.approx(one["loss"], rel=1e-4)
