"""What pruning did to each layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from obert.foundation.memory import peak_memory_mb
from obert.library.layers import LeftOut
from obert.masks.counts import assert_sparsity, count_zeros
from obert.masks.patterns import Distribution, Pattern
from obert.masks.selection import Masks
from obert.pruning import Method


@dataclass(frozen=True)
class PrunedLayer:
    """What pruning did to one layer's weight.

    Attributes:
        size: number of weights.
        zeros: how many are exactly zero.
        target: fraction that the mask prunes.
        predicted_loss_increase: of the quadratic model, None for methods without one.
    """

    size: int
    zeros: int
    target: float
    predicted_loss_increase: float | None

    @property
    def measured(self) -> float:
        """Fraction that is exactly zero."""
        return self.zeros / self.size


@dataclass(frozen=True)
class PruningReport:
    """What `prune` or a `GradualPruner` did. Printed, it is a table by layer.

    Attributes:
        method: the method's name, with all its `parameters`.
        pattern: which weights were pruned together.
        layers: by the name of the weight.
        total: all of them together, with the sparsity asked for as target.
        left_out: weights of two dimensions or more that were not pruned, by name, with the kind of their layer and
            their size: convolutions, embeddings, and linear layers outside of the scope.
        kept_zeros: weights that were zero at the beginning and, as no masks said otherwise, were kept so as pruned.
        seconds: `total`, of which `gradients` (with what is summed from them) and `solving` (the rest). A method that
            only looks at what layers are given has `forward passes` in the place of `gradients`.
        peak_memory_mb: peak resident memory of this process so far, in MB (10^6 bytes).
        peak_gpu_memory_mb: peak memory that torch has allocated on the model's GPU so far, None on a CPU.
        masks: by the name of the weight, in its shape, True where it is kept: for `hold_masks`, or to prune further.
    """

    method: str
    parameters: dict[str, Any]
    pattern: str
    layers: dict[str, PrunedLayer]
    total: PrunedLayer
    left_out: dict[str, LeftOut]
    kept_zeros: int
    seconds: dict[str, float]
    peak_memory_mb: float
    peak_gpu_memory_mb: float | None
    masks: Masks = field(repr=False)

    def __str__(self) -> str:
        width = max(map(len, (*self.layers, "layer")))
        lines = [f"{'layer':{width}}  {'weights':>11}  {'target':>8}  {'measured':>8}  predicted loss increase"]
        for name, layer in {**self.layers, "all": self.total}.items():
            increase = "-" if layer.predicted_loss_increase is None else f"{layer.predicted_loss_increase:.4g}"
            lines.append(
                f"{name:{width}}  {layer.size:11,}  {layer.target:8.2%}  {layer.measured:8.2%}  {increase:>23}"
            )
        if self.kept_zeros:
            lines.append(f"{self.kept_zeros:,} weights were zero before: they count as pruned, and stay so")
        if self.left_out:
            counts, sizes = Counter(w.kind for w in self.left_out.values()), Counter()
            for weight in self.left_out.values():
                sizes[weight.kind] += weight.size
            kinds = (f"{kind} {count} ({sizes[kind]:,} weights)" for kind, count in counts.items())
            lines.append(f"left out: {', '.join(kinds)}")
        times = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in self.seconds.items())
        memory = f"peak memory {self.peak_memory_mb:.0f} MB"
        if self.peak_gpu_memory_mb is not None:
            memory += f", GPU {self.peak_gpu_memory_mb:.0f} MB"
        return "\n".join([f"{self.method}, {self.pattern}", *lines, f"seconds: {times}; {memory}"])


def report_on(
    name: str,
    method: Method,
    pattern: Pattern,
    distribution: Distribution,
    weights: Mapping[str, Tensor],
    masks: Masks,
    sparsity: float,
    increases: Mapping[str, float],
    left_out: dict[str, LeftOut],
    kept_zeros: int,
    seconds: tuple[float, float],
) -> PruningReport:
    """Count the zeros, and tell.

    Args:
        name: of the method.
        weights: that a forward pass uses.
        sparsity: asked for.
        increases: predicted increases of the loss by the name of the weight, empty for methods without any.
        seconds: that were spent on drawing from the batches, and in all.

    Raises:
        RuntimeError: there are fewer zeros than the sparsity asks for.
    """
    counted = assert_sparsity(count_zeros(weights, sparsity), "pruning", pattern, distribution)
    found = {
        name: PrunedLayer(layer.size, layer.zeros, int((~masks[name]).sum()) / layer.size, increases.get(name))
        for name, layer in counted.layers.items()
    }
    total = PrunedLayer(
        size=sum(layer.size for layer in found.values()),
        zeros=sum(layer.zeros for layer in found.values()),
        target=sparsity,
        predicted_loss_increase=sum(increases.values()) if increases else None,
    )
    device = next(iter(weights.values())).device
    drawing, elapsed = seconds
    drawn = "forward passes" if method.forward_examples() else "gradients"
    return PruningReport(
        method=name,
        parameters=method.model_dump(),
        pattern=str(pattern),
        layers=found,
        total=total,
        left_out=left_out,
        kept_zeros=kept_zeros,
        seconds={drawn: drawing, "solving": elapsed - drawing, "total": elapsed},
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        masks=masks,
    )
