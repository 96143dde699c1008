"""ONNX Runtime's CPU provider with all graph optimisations."""

import numpy as np

from obert.engines import Engine, ModelFiles


class OnnxRuntime(Engine):
    """The exported model, one operator after the other, each with all threads."""

    label = "ONNX Runtime"
    library = "onnxruntime"

    def __init__(self, model: ModelFiles, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Each session has its own pool, whose idle threads spin for a while. Between two interleaved sessions that
        # would take processor time from the one being timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(model.onnx, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self._session.run(None, inputs)

    def threads(self) -> int:
        options = self._session.get_session_options()
        return options.intra_op_num_threads * options.inter_op_num_threads
