"""Inference engines, one file each, all running the same model under the same protocol."""

import importlib.metadata
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from obert.foundation.environments import Environment
from obert.heads import Head


@dataclass(frozen=True)
class ModelFiles:
    """Where one model is, in both of the forms that engines read."""

    onnx: Path
    """The exported file."""
    trained: Path
    """The folder that `obert.models.encoders.save` wrote."""
    head: Head | None
    """What stands on the encoder, for engines that read the trained model."""


class EngineError(Exception):
    """An engine crashed, hung, or could not load or run a model: no mistake of the user's, and no other's concern.

    The first line of its text says what happened.
    """


def failure(error: Exception) -> str:
    """Why an engine failed, by whatever its library raises."""
    return str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"


def first_of(first: str, count: int) -> str:
    """The first of what an engine leaves to a slower way, and how many there are besides."""
    return f"{first}, and {count - 1} more" if count > 1 else first


class Engine(ABC):
    """An engine with one model loaded.

    An engine's file must import without its library; the library is imported when a model is loaded.
    """

    label: ClassVar[str]
    library: ClassVar[str]
    """The Python package the engine needs."""
    environment: ClassVar[Environment | None] = None
    """Where that package is, if it cannot be installed beside this project's."""
    hardware: ClassVar[str | None] = None
    """What the engine needs that not every machine has, if anything."""
    reads_trained: ClassVar[bool] = False
    """Whether the engine runs the trained model, and not the exported file."""
    tolerance: ClassVar[float] = 1e-5
    """How far logits may be from those of PyTorch in float32."""

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """None if the engine runs here, else one line that says why not, e.g. which library is missing."""
        if cls.environment is not None:
            if reason := cls.environment.missing(cls.library):
                return f"{cls.label} needs the Python package '{cls.library}' in an environment of its own: {reason}"
        elif find_spec(cls.library) is None:
            return f"{cls.label} needs the Python package '{cls.library}', which is not installed"
        return None

    @classmethod
    def unfit_reason(cls, model: ModelFiles) -> str | None:
        """None if a model can be timed in this engine, else one line that says why it would mean nothing."""
        return cls.inexact_reason(model)

    @classmethod
    @cache
    def integer_product_error(cls) -> int:
        """By how much this engine's products of 8-bit integers are wrong on this machine: 0 where they are exact.

        A small integer graph is loaded and run, once a process. An engine that loads encoders alone overrides this.
        """
        import onnx

        from obert.engines import _integer_products

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(_integer_products.graph(), path)
            return _integer_products.largest_error(cls(ModelFiles(path, path.parent, None), 1).run)

    @classmethod
    def inexact_reason(cls, model: ModelFiles) -> str | None:
        """None if the products of a model are exact here, else one line that says by how much they are not.

        Only exports of quantised models have products of integers.
        """
        import onnx

        try:
            nodes = onnx.load(model.onnx, load_external_data=False).graph.node
        except Exception:  # the engine will say what is wrong with it
            return None
        if not any(node.op_type == "MatMulInteger" for node in nodes):
            return None
        try:
            error = cls.integer_product_error()
        except Exception as found:  # whatever a library raises
            return f"{cls.label}'s products of 8-bit integers could not be checked: {failure(found).splitlines()[0]}"
        if not error:
            return None
        return (
            f"{cls.label}'s products of 8-bit integers are wrong on this processor, by up to {error:,}: "
            "sums of two saturate in 16 bits"
        )

    @abstractmethod
    def __init__(self, model: ModelFiles, threads: int):
        """Load a model, to run with that many CPU threads."""

    @abstractmethod
    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Logits for one batch of int64 arrays [batch, tokens]: `input_ids`, `attention_mask`, `token_type_ids`.

        The model is given those that it takes.

        Returns:
            One float32 array [batch, classes] for classification; start and end scores, each [batch, tokens], for
            question answering.
        """

    @abstractmethod
    def threads(self) -> int:
        """The number of threads the engine itself says it uses."""

    def unsupported(self) -> str | None:
        """None if the engine's own kernels run all that matters of the graph that it ran last.

        Else the first operator that it leaves to a slower way without a word, by type and name, such as a linear layer
        whose zeros it does not use. An engine with one way to run an operator leaves this as it is.
        """
        return None

    def linear_seconds(self, inputs: dict[str, np.ndarray]) -> float | None:
        """Seconds that the encoder's linear layers take of one run; None if the engine cannot tell."""
        return None

    def version(self) -> str:
        """The version of the library."""
        return importlib.metadata.version(self.library)
