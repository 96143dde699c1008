"""A GPU that is pretended on the CPU: tensors that say they are on it, and refuse to be mixed with those of the CPU.

It computes with the CPU's own kernels, so results are the CPU's to the last bit, and what a GPU would refuse is an
error: operands on two devices, a CPU's generator for numbers on the GPU, `.numpy()` before `.cpu()`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
COPIES = (Tensor.copy_, Tensor.to)  # from one device to another, as they are
PACKAGE = Path(__file__).resolve().parents[2] / "obert"
REACHED: set[str] = set()  # files of the package that have computed there
INDEXED = (Tensor.__getitem__, Tensor.__setitem__)  # by indices of either device, if the tensor is on the GPU


class OnGpu(Tensor):
    """A tensor on the pretended GPU."""


def _is_gpu(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


def _there(value: Any) -> Any:
    """The same with all tensors on the GPU."""
    return tree_map(lambda x: x.as_subclass(OnGpu) if isinstance(x, Tensor) and not isinstance(x, OnGpu) else x, value)


def _here(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor) if isinstance(value, OnGpu) else value


class PretendedGpu(TorchFunctionMode):
    """A block in which there is such a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = [x for x in tensors if isinstance(x, OnGpu)]
        with torch._C.DisableTorchFunctionSubclass():
            if on_gpu and func == Tensor.device.__get__:
                return GPU
            if on_gpu and func == Tensor.is_cuda.__get__:
                return True
            if on_gpu and func == Tensor.numpy:
                raise TypeError("can't convert a tensor on the GPU to numpy: copy it to the CPU first")
            if func in (Tensor.cpu, Tensor.cuda):
                return _here(args[0]) if func is Tensor.cpu else _there(args[0])
            if func is Tensor.to:
                return self._moved(args, kwargs)
            if on_gpu:
                _remember_callers()
            self._check(func, args, tensors, on_gpu)
            wanted = kwargs.get("device")
            if _is_gpu(wanted):
                generator = kwargs.get("generator")
                if generator is not None and generator.device.type == "cpu":
                    raise RuntimeError(f"{func.__name__}: a generator of the CPU for numbers on the GPU")
                kwargs["device"] = CPU
            result = func(*args, **kwargs)
            stays = bool(on_gpu) and (wanted is None or _is_gpu(wanted))
            return _there(result) if stays or _is_gpu(wanted) else result

    @staticmethod
    def _moved(args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """`Tensor.to`, whose device may be given by itself, by name, or as that of another tensor."""
        value, *others = args
        devices = [x for x in (*others, *kwargs.values()) if isinstance(x, str | torch.device)]
        given = next((x for x in others if isinstance(x, Tensor)), None)
        there = isinstance(given, OnGpu) if given is not None else isinstance(value, OnGpu)
        if devices:
            there = _is_gpu(devices[0])
        others = [CPU if isinstance(x, str | torch.device) else x for x in others]
        kwargs = {name: CPU if name == "device" else x for name, x in kwargs.items()}
        result = _here(value).to(*others, **kwargs)
        return _there(result) if there else _here(result)

    @staticmethod
    def _check(func: Any, args: tuple, tensors: list[Tensor], on_gpu: list[Tensor]) -> None:
        """Raise what a GPU raises where operands are on two devices; single numbers of the CPU may go with any."""
        if not on_gpu or func in COPIES or (func in INDEXED and isinstance(args[0], OnGpu)):
            return
        elsewhere = [x for x in tensors if not isinstance(x, OnGpu) and x.dim() > 0]
        if elsewhere:
            shapes = ", ".join(str(list(x.shape)) for x in elsewhere)
            raise RuntimeError(f"{getattr(func, '__name__', func)}: tensors on the CPU ({shapes}) and on the GPU")


def _remember_callers() -> None:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(PACKAGE)):
            REACHED.add(Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix())
        frame = frame.f_back


def move(network: nn.Module) -> nn.Module:
    """Put a model's parameters and buffers on the pretended GPU, in place."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                moved = nn.Parameter(parameter.detach().as_subclass(OnGpu), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = buffer.as_subclass(OnGpu)
    return network
