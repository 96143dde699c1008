"""ONNX Runtime's CPU provider with all graph optimisations."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from obert.engines import Engine, ModelFiles, _integer_products
from obert.engines._unsigned_weights import to_unsigned

log = logging.getLogger(__name__)


class OnnxRuntime(Engine):
    """The exported model, one operator after the other, each with all threads.

    Where products of uint8 and int8 saturate, as they do without VNNI, an integer graph is run with weights in uint8.
    """

    label = "ONNX Runtime"
    library = "onnxruntime"

    def __init__(self, model: ModelFiles, threads: int):
        source: Path | bytes = model.onnx
        if _saturates():
            loaded = onnx.load(model.onnx)
            if to_unsigned(loaded.graph):
                source = loaded.SerializeToString()
        self._session = _session(source, threads)
        self._inputs = [declared.name for declared in self._session.get_inputs()]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(None, {name: inputs[name] for name in self._inputs})

    def threads(self) -> int:
        options = self._session.get_session_options()
        return options.intra_op_num_threads * options.inter_op_num_threads


def _session(source: Path | bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Each session has its own pool, whose idle threads spin for a while. Between two interleaved sessions that
    # would take processor time from the one being timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@cache
def _saturates() -> bool:
    """Whether products of uint8 and int8, the form of an export, are wrong on this processor."""
    session = _session(_integer_products.graph().SerializeToString(), 1)
    error = _integer_products.largest_error(lambda inputs: session.run(None, inputs))
    if error:
        log.warning(
            "ONNX Runtime's products of uint8 and int8 saturate on this processor, by up to %d: "
            "8-bit weights are run as uint8, which is exact and slower",
            error,
        )
    return error > 0
