"""PyTorch on a GPU in half precision, with its semi-structured kernels for linear layers of the pattern 2:4."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from obert.engines import Engine, ModelFiles

if TYPE_CHECKING:
    from torch import Tensor, nn

CAPABILITY = (8, 0)
"""The lowest compute capability of NVIDIA's GPUs with sparse tensor cores."""
STRAY_ZEROS = 0.01
"""The fraction of zeros that a layer may have which nothing has pruned."""


class SemiStructured(Engine):
    """The trained model. A dense one, with dense kernels in the same precision, is what 2:4 is compared with."""

    label = "PyTorch's 2:4 kernels"
    reads_trained = True
    library = "torch"
    hardware = f"an NVIDIA GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or higher"
    tolerance = 2e-2

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if reason := super().unavailable_reason():
            return reason
        import torch

        if torch.cuda.is_available() and torch.cuda.get_device_capability() >= CAPABILITY:
            return None
        return f"{cls.label} need {cls.hardware}, and there is none"

    @classmethod
    def unfit_reason(cls, model: ModelFiles) -> str | None:
        from obert.models.encoders import QUANTIZED, load_trained, prunable_weights

        if (model.trained / QUANTIZED).is_file():
            return f"{cls.label} are timed in half precision, not with a quantised model's rounding"
        for name, weight in prunable_weights(load_trained(model.trained, model.head)).items():
            if (weight == 0).float().mean() > STRAY_ZEROS and not is_2_4(weight):
                return f"{cls.label} cannot run {name}, whose zeros are not in the pattern 2:4"
        return None

    def __init__(self, model: ModelFiles, threads: int):
        import torch

        from obert.models.encoders import load_tokenizer, load_trained, prunable_layers

        self._torch = torch
        torch.set_num_threads(threads)
        network = load_trained(model.trained, model.head).half().cuda()
        self._layers = prunable_layers(network)
        for layer in self._layers.values():
            if is_2_4(layer.weight):
                layer.weight = torch.nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()))
        self._network = network
        self._inputs = load_tokenizer(model.trained).model_input_names

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with self._torch.inference_mode():
            tensors = {name: self._torch.from_numpy(inputs[name]).cuda() for name in self._inputs}
            return [output.float().cpu().numpy() for output in self._network(**tensors, return_dict=False)]

    def linear_seconds(self, inputs: dict[str, np.ndarray]) -> float:
        return seconds_of_layers(self._layers, lambda: self.run(inputs))

    def threads(self) -> int:
        return self._torch.get_num_threads()


def is_2_4(weight: Tensor) -> bool:
    """Whether each group of four weights of a row has two zeros or more."""
    return weight.shape[1] % 4 == 0 and bool((weight.reshape(-1, 4) == 0).sum(1).ge(2).all())


def seconds_of_layers(layers: dict[str, nn.Module], run: Callable[[], object]) -> float:
    """Median seconds of each layer on the input that it gets in `run`, one after the other, added up."""
    import torch
    from torch.utils.benchmark import Timer

    seen: list[tuple[nn.Module, Tensor]] = []  # a layer that runs several times is there as often
    hooks = [
        layer.register_forward_pre_hook(lambda layer, given: seen.append((layer, given[0])))
        for layer in layers.values()
    ]
    run()
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        timers = (
            Timer("layer(x)", globals={"layer": layer, "x": x}, num_threads=torch.get_num_threads())
            for layer, x in seen
        )
        return sum(timer.blocked_autorange(min_run_time=0.02).median for timer in timers)
