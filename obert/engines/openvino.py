"""OpenVINO's CPU plugin: maintained, under the Apache licence 2.0, with kernels in 8 bits for the whole of a layer.

It makes no use of zeros. Its option for sparse weights (`CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE`, for processors with
AMX) leaves them out in memory and multiplies them all the same.
"""

import logging
import sys
from functools import cache
from typing import Any

import numpy as np
import onnx

from obert.deployment.onnx_graph import OnnxGraph
from obert.engines import Engine, ModelFiles, _integer_products, first_of
from obert.engines._quantized_pairs import to_pairs

log = logging.getLogger(__name__)


class OpenVino(Engine):
    """The exported model, in float32 where it is not in 8 bits; an integer graph in the form that OpenVINO wants.

    Where products of uint8 and int8 saturate, as they do without VNNI, linear layers multiply the same integers in
    float32, and `unsupported` says so.
    """

    label = "OpenVINO"
    library = "openvino"

    def __init__(self, model: ModelFiles, threads: int):
        loaded = onnx.load(model.onnx)
        layers = {node.name for nodes in OnnxGraph(loaded.graph).layers().values() for node in nodes}
        self._products = {  # and whether it is that of a linear layer
            node.name: node.name in layers for node in loaded.graph.node if node.op_type == "MatMulInteger"
        }
        self._wide = bool(self._products) and _saturates()
        self._results = to_pairs(loaded.graph, wide_weights=self._wide)
        self._compiled = _compile(loaded.SerializeToString() if self._results else model.onnx, threads)
        self._request = self._compiled.create_infer_request()
        self._inputs = [declared.get_any_name() for declared in self._compiled.inputs]

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(self._request.infer({name: inputs[name] for name in self._inputs}).values())

    def threads(self) -> int:
        return self._compiled.get_property("INFERENCE_NUM_THREADS")

    def unsupported(self) -> str | None:
        """The first integer product that is multiplied in a wider type.

        An attention's product between pairs is part of a kernel that does not tell its type: it is not looked at.
        """
        in_8_bits = set()
        for operator in self._compiled.get_runtime_model().get_ops():
            facts = operator.get_rt_info()
            if facts["runtimePrecision"].value in ("u8", "i8"):
                names = facts["originalLayersNames"].value.split(",")
                # A product whose zero point is 0 has lost its own name, but not those of its scaling.
                in_8_bits.update(name.partition("/Dequantization")[0] for name in names)
        left = [
            name
            for name, is_layer in self._products.items()
            # What makes an output of the graph has the output's name to the library.
            if name not in self._results or (is_layer and not in_8_bits & {name, self._results[name]})
        ]
        if not left:
            return None
        saturates = self._wide and left[0] in self._results
        why = " (in float32, as in 8 bits it saturates on this processor)" if saturates else ""
        return first_of(f"MatMulInteger '{left[0]}'{why}", len(left))


def _compile(source: Any, threads: int) -> Any:
    """A compiled model of a file's path or of its bytes."""
    # The library reports its use, from its import on, by a package that it can do without: here it does.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # it would be bf16 where the processor has that
    }
    return core.compile_model(core.read_model(source), "CPU", options)


@cache
def _saturates() -> bool:
    """Whether products of uint8 and int8 between pairs are wrong on this processor."""
    made = _integer_products.graph()
    to_pairs(made.graph)
    request = _compile(made.SerializeToString(), 1).create_infer_request()
    error = _integer_products.largest_error(lambda inputs: list(request.infer(inputs).values()))
    if error:
        log.warning(
            "OpenVINO's products of uint8 and int8 saturate on this processor, by up to %d: "
            "linear layers in 8 bits are run in float32",
            error,
        )
    return error > 0
