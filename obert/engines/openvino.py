"""OpenVINO's CPU plugin: maintained, under the Apache licence 2.0, with kernels in 8 bits for the whole of a layer.

It makes no use of zeros. Its option for sparse weights (`CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE`, for processors with
AMX) leaves them out in memory and multiplies them all the same.
"""

import sys

import numpy as np
import onnx

from obert.engines import Engine, ModelFiles, first_of
from obert.engines._quantized_pairs import to_pairs


class OpenVino(Engine):
    """The exported model, in float32 where it is not in 8 bits; an integer graph in the form that OpenVINO wants."""

    label = "OpenVINO"
    library = "openvino"

    def __init__(self, model: ModelFiles, threads: int):
        # The library reports its use, from its import on, by a package that it can do without: here it does.
        sys.modules.setdefault("openvino_telemetry", None)
        import openvino

        loaded = onnx.load(model.onnx)
        constants = {tensor.name for tensor in loaded.graph.initializer}
        self._products = {  # and whether it is that of a linear layer
            node.name: node.input[1] in constants for node in loaded.graph.node if node.op_type == "MatMulInteger"
        }
        self._results = to_pairs(loaded.graph)
        source = loaded.SerializeToString() if self._results else model.onnx
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",  # all threads on one batch
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # it would be bf16 where the processor has that
        }
        self._compiled = core.compile_model(core.read_model(source), "CPU", options)
        self._request = self._compiled.create_infer_request()

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(self._request.infer(inputs).values())

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
                in_8_bits.update(facts["originalLayersNames"].value.split(","))
        left = [
            name
            for name, is_layer in self._products.items()
            # What makes an output of the graph has the output's name to the library.
            if name not in self._results or (is_layer and not in_8_bits & {name, self._results[name]})
        ]
        return first_of(f"MatMulInteger '{left[0]}'", len(left)) if left else None
