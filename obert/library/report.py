"""What one-shot pruning did to each layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from obert.masks.selection import Masks


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
    """What `prune` did. Printed, it is a table by layer.

    Attributes:
        method: the method's name, with all its `parameters`.
        pattern: which weights were pruned together.
        layers: by the name of the weight.
        total: all of them together, with the sparsity asked for as target.
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
        times = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in self.seconds.items())
        memory = f"peak memory {self.peak_memory_mb:.0f} MB"
        if self.peak_gpu_memory_mb is not None:
            memory += f", GPU {self.peak_gpu_memory_mb:.0f} MB"
        return "\n".join([f"{self.method}, {self.pattern}", *lines, f"seconds: {times}; {memory}"])
