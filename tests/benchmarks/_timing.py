"""What the speed benchmarks share: a clock, and the machine's own rates to compare with."""

from __future__ import annotations

import math
import time

import torch


class Clock:
    """Adds up the seconds spent inside its blocks, the device's work included."""

    def __init__(self, device: torch.device):
        self.seconds = 0.0
        self._device = device

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def __enter__(self):
        self._start = self._now()

    def __exit__(self, *_):
        self.seconds += self._now() - self._start


def _best(action, device: torch.device) -> float:
    best = math.inf
    for _ in range(6):
        clock = Clock(device)
        with clock:
            action()
        best = min(best, clock.seconds)
    return best


def gemm_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a large square matrix product, the best of several."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: torch.mm(a, b), device)


def memory_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of a copy that no cache holds, the best of several."""
    source = torch.zeros(1 << (26 if device.type == "cpu" else 29), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def environment(device: torch.device) -> dict[str, object]:
    """Where the figures were taken."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def show(found: dict[str, object]) -> str:
    """Figures for a reader, one a line."""
    return "\n".join(f"{name:30} {f'{v:.4g}' if isinstance(v, float) else v}" for name, v in found.items())
