"""What is told of each optimiser step, kept on the device and fetched some steps at a time.

To read a number from a GPU is to wait until it has done all that it was given, and meanwhile it gets nothing new.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from obert.foundation import processes

FETCH_EVERY = 10  # steps


class PendingSteps:
    """The lines of steps whose numbers are still on the device."""

    def __init__(self):
        self._lines: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []
        self._norms: list[Tensor | None] = []
        self._clock = time.perf_counter()

    def add(self, line: dict[str, Any], loss: Tensor, grad_norm: Tensor | None) -> None:
        """A step that is over.

        Args:
            line: what is known of it without the device.
            loss: of this process's share of the batch.
            grad_norm: of all processes' together; None where releases of the Trainer that clip none have none.
        """
        self._lines.append(line | {"seconds": self._since()})
        self._losses.append(loss.clone())  # the Trainer goes on adding to its own
        self._norms.append(grad_norm)

    def fetch(self) -> list[dict[str, Any]]:
        """The lines since the last time, with `loss`, a mean over the processes, `grad_norm` and `seconds`.

        A line's seconds are those until its step was given to the device, the last one's also those until all were
        done.
        """
        if not self._lines:
            return []
        losses = processes.mean(torch.stack(self._losses)).tolist()
        known = iter(torch.stack([norm for norm in self._norms if norm is not None] or [torch.empty(())]).tolist())
        norms = [{} if norm is None else {"grad_norm": next(known)} for norm in self._norms]
        lines = [{"loss": loss, **norm, **line} for line, loss, norm in zip(self._lines, losses, norms, strict=True)]
        lines[-1]["seconds"] += self._since()
        self._lines, self._losses, self._norms = [], [], []
        return lines

    def _since(self) -> float:
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before
