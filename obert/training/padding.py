"""The padding of a batch, known without asking the device.

Models of `transformers` leave the attention mask out where nothing is padded, and read it from the device to see.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class AttentionMask(Tensor):
    """A mask, 1 for tokens and 0 for padding, that knows whether it is all ones. What is made of it is a plain tensor.

    Attributes:
        whole: nothing is padded.
    """

    whole: bool

    @classmethod
    def of(cls, mask: Tensor, whole: bool) -> AttentionMask:
        """The same mask, with the answer."""
        known = mask.as_subclass(cls)
        known.whole = whole
        return known

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func == Tensor.all and len(args) == 1 and not kwargs:
                return args[0].whole
            result = func(*args, **(kwargs or {}))
            if func == Tensor.to and isinstance(args[0], cls):
                return cls.of(result, args[0].whole)
            return result.as_subclass(Tensor) if isinstance(result, cls) else result
