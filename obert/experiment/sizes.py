"""How large an experiment's models and data are: counted once by `obert check`, then read from a file by every plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from obert.experiment.folders import RESULTS
from obert.experiment.strict import Strict
from obert.foundation.files import json_hash, write_text

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun
    from obert.experiment.schema import Experiment, Model

LAYER = re.compile(r"(?:^|\.)(\d+)\.")


class ModelSize(Strict):
    """An encoder without a task's head.

    Attributes:
        parts: sizes of its weight matrices by name, by the part of a recipe's scope.
        multiplied: weights that a token is multiplied by, shared ones as often as they are used.
    """

    parameters: int
    multiplied: int
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    vocabulary: int
    parts: dict[str, dict[str, int]]

    def with_layers(self, count: int) -> Self:
        """The size with so many layers. Names number the layers, unless all of them share one's weights."""
        numbers = {name: int(found[1]) for name in self.parts["encoder"] if (found := LAYER.search(name))}
        kept = {n: size for n, size in self.parts["encoder"].items() if numbers.get(n, 0) < count}
        dropped = sum(self.parts["encoder"].values()) - sum(kept.values())
        changes = {
            "parameters": self.parameters - dropped,
            "multiplied": round(self.multiplied * count / self.layers),
            "layers": count,
            "parts": {**self.parts, "encoder": kept},
        }
        return self.model_copy(update=changes)


class DataSize(Strict):
    """A task's data as a model sees it.

    Attributes:
        train, validation: features.
        sequences: of a feature; more than one in multiple choice.
        tokens, longest: of a sequence, on average and at most.
    """

    train: int
    validation: int
    sequences: int
    tokens: float
    longest: int


def _bert_base() -> ModelSize:
    hidden, layers = 768, 12
    of_layer = {"query": 1, "key": 1, "value": 1, "attention_output": 1, "intermediate": 4, "output": 4}
    encoder = {f"{i}.{name}": times * hidden**2 for i in range(layers) for name, times in of_layer.items()}
    vocabulary = 30522
    return ModelSize(
        parameters=109_482_240,
        multiplied=sum(encoder.values()),
        layers=layers,
        hidden=hidden,
        feed_forward=4 * hidden,
        heads=12,
        vocabulary=vocabulary,
        parts={"encoder": encoder, "embeddings": {"word": vocabulary * hidden}, "head": {"pooler": hidden**2}},
    )


BERT_BASE = _bert_base()


class Sizes(Strict):
    """What is known of an experiment's models and data, by hashes of what decides it."""

    models: dict[str, ModelSize] = {}
    data: dict[str, DataSize] = {}

    @staticmethod
    def path(experiment: Experiment) -> Path:
        """The file that an experiment's sizes are in."""
        return RESULTS / "logs" / experiment.name / "sizes.json"

    @classmethod
    def of(cls, experiment: Experiment) -> Sizes:
        """What was counted before; empty if nothing was, or the file is not from this version."""
        try:
            return cls.model_validate_json(cls.path(experiment).read_bytes())
        except (OSError, ValidationError):
            return cls()

    def save(self, experiment: Experiment) -> None:
        """Write them for plans to come."""
        write_text(self.path(experiment), self.model_dump_json(indent=1) + "\n")

    def add_model(self, model: Model, size: ModelSize) -> None:
        """Note the size of an experiment's model."""
        self.models[_model_key(model)] = size

    def add_data(self, run: PlannedRun, size: DataSize) -> None:
        """Note the size of a run's data, as its model's tokenizer makes it."""
        self.data[_data_key(run)] = size

    def model_of(self, run: PlannedRun) -> ModelSize:
        """The size of a run's model; that of BERT-base as long as nobody has counted."""
        return self.models.get(_model_key(run.model), BERT_BASE)

    def data_of(self, run: PlannedRun) -> DataSize | None:
        """The size of a run's data, None as long as nobody has counted."""
        return self.data.get(_data_key(run))


def _model_key(model: Model) -> str:
    return json_hash(model.model_dump(mode="json"))


def _data_key(run: PlannedRun) -> str:
    return json_hash([run.key.task, run.task.model_dump(mode="json"), run.model.source])
