"""PyTorch eager mode, with fused attention where the architecture has it: the runtime of whoever has not exported."""

import numpy as np

from obert.engines import Engine, ModelFiles


class PyTorch(Engine):
    """The trained model in `inference_mode`. PyTorch has one thread pool a process, so all instances share it."""

    label = "PyTorch"
    reads_trained = True
    library = "torch"

    @classmethod
    def unfit_reason(cls, model: ModelFiles) -> str | None:
        from obert.models.encoders import QUANTIZED

        if (model.trained / QUANTIZED).is_file():
            return "PyTorch runs a quantised model's rounding in float32, which is slower than the float model"
        return None

    def __init__(self, model: ModelFiles, threads: int):
        import torch

        from obert.models.encoders import load_tokenizer, load_trained

        self._torch = torch
        torch.set_num_threads(threads)
        self._network = load_trained(model.trained, model.head)
        self._inputs = load_tokenizer(model.trained).model_input_names

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._torch.inference_mode():
            tensors = {name: self._torch.from_numpy(inputs[name]) for name in self._inputs}
            return [output.numpy() for output in self._network(**tensors, return_dict=False)]

    def threads(self) -> int:
        return self._torch.get_num_threads()
