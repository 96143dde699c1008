"""LayerNorm, GELU and Split in elementary operators, as exports had them before opset 17.

DeepSparse's kernels run none of the exporter's own forms: LayerNormalization, GELU with its products in another order,
Split by the number of parts.
"""

import torch
from onnxscript import opset18 as op


def layer_norm(self, normalized_shape, weight=None, bias=None, eps: float = 1e-5, cudnn_enable: bool = True):
    """aten::layer_norm over the last axis."""
    last = op.Constant(value_ints=[-1])
    centred = op.Sub(self, op.ReduceMean(self, last, keepdims=1))
    variance = op.ReduceMean(op.Pow(centred, op.Constant(value_float=2.0)), last, keepdims=1)
    normal = op.Div(centred, op.Sqrt(op.Add(variance, op.Constant(value_float=eps))))
    scaled = normal if weight is None else op.Mul(normal, weight)
    return scaled if bias is None else op.Add(scaled, bias)


def gelu(self, approximate: str = "none"):
    """aten::gelu, not approximated: x * (1 + erf(x / sqrt(2))) * 0.5"""
    error = op.Erf(op.Div(self, op.Constant(value_float=2.0**0.5)))
    return op.Mul(op.Mul(self, op.Add(error, op.Constant(value_float=1.0))), op.Constant(value_float=0.5))


def split(self, size: int, dim: int = 0):
    """aten::split of an axis of known size into parts of `size`."""
    axis = op.Constant(value_ints=[dim])
    starts = range(0, self.shape[dim], size)
    return tuple(op.Slice(self, op.Constant(value_ints=[s]), op.Constant(value_ints=[s + size]), axis) for s in starts)


TRANSLATIONS = {
    torch.ops.aten.layer_norm.default: layer_norm,
    torch.ops.aten.gelu.default: gelu,
    torch.ops.aten.split.Tensor: split,
}
