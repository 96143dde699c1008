"""This project's own engine for CPUs: zeros in weights cost neither time nor memory, in float32 and in 8 bits.

Its kernels are Python that Numba compiles for the processor at hand: the first run on a machine takes some seconds, and
the compiled code is kept. See docs/explanation/sparse_engine.md.
"""

import importlib.metadata
from functools import cache

import numpy as np

from obert.engines import Engine, EngineError, ModelFiles, _integer_products
from obert.foundation.errors import UserError


class Sparse(Engine):
    """The exported model, float or integer, in `obert.sparse`. Its threads sleep between two runs."""

    label = "obert sparse"
    library = "numba"

    @classmethod
    def unfit_reason(cls, model: ModelFiles) -> str | None:
        """The first operator of a graph that the engine does not understand, if there is one."""
        from obert.sparse.reading import read

        try:
            read(model.onnx)
        except UserError as error:
            return f"{cls.label} does not run this model: {error}"
        return cls.inexact_reason(model)

    @classmethod
    @cache
    def integer_product_error(cls) -> int:
        """The largest error of an integer layer's products: by rows of integers that tokens look up."""
        from obert.sparse.model import SparseModel
        from obert.sparse.program import Embed, Linear, Lookup, Output, Program, Rounding, Weight

        inputs, weights = _integer_products.operands()
        integers = inputs.astype(np.int64) - _integer_products.ZERO_POINT
        rounding = Rounding(np.float32(1), _integer_products.ZERO_POINT)
        bias = np.zeros(weights.shape[1], np.int32)
        weight = Weight("layer", np.ascontiguousarray(weights.T), bias, rounding, np.float32(1))
        rows = Embed("rows", (Lookup(integers.astype(np.float32), "words"),))
        output = Output("products", "products", 0, weights.shape[1])
        program = Program((rows, Linear("products", "rows", weight)), (output,), ("input_ids",), None, None)
        (found,) = SparseModel(program, 1)(input_ids=np.arange(len(inputs))[None])
        return int(np.abs(np.float64(found[0]) - integers @ weights.astype(np.int64)).max())

    def __init__(self, model: ModelFiles, threads: int):
        from obert.sparse.model import SparseModel

        try:
            self._model = SparseModel.load(model.onnx, threads)
        except UserError as error:  # of this engine alone: others may run the model
            raise EngineError(str(error)) from error

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._model(**self._taken(inputs))

    def threads(self) -> int:
        return self._model.threads

    def seconds_by_part(self, inputs: dict[str, np.ndarray]) -> dict[str, float]:
        """Seconds of one run by what they were spent on, such as `linear` and `attention`."""
        return self._model.seconds_by_part(**self._taken(inputs))

    def linear_seconds(self, inputs: dict[str, np.ndarray]) -> float:
        return self.seconds_by_part(inputs)["linear"]

    def version(self) -> str:
        """The versions of this project and of its compiler."""
        return f"{importlib.metadata.version('obert')} with Numba {super().version()}"

    def _taken(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: inputs[name] for name in self._model.inputs}
