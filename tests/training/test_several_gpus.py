"""One process that sees several GPUs."""

import pytest
from samples import HEADS, with_new_head
from transformers import TrainingArguments

from obert.experiment.recipe import LearningRate, Training
from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError
from obert.models.encoders import load_tokenizer
from obert.training.features import Features
from obert.training.trainer import CompressionTrainer


def test_several_gpus_in_one_process_are_refused(root, tmp_path, monkeypatch):
    """The Trainer would copy the model to each of them, and multiply the recipe's batch."""
    folder = root / "tests" / "data" / "tiny_bert"
    network, tokenizer = with_new_head(folder, HEADS["sequence_classification"]), load_tokenizer(folder)
    task = load_task("movie_reviews", {"source": "tests/data/movie_reviews", "max_length": 32}, "test")
    data = Features.encode(task, task.load()["validation"], tokenizer)
    training = Training(epochs=1, learning_rate=LearningRate(initial=1e-4))
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(UserError, match="2 GPUs: start one process a GPU with torchrun"):
        CompressionTrainer(network, data, training, {"data order": 0, "dropout": 0}, tmp_path)
