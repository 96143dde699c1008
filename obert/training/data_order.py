"""The order in which training meets its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

MIN_PARTS = 4  # of an epoch that has a batch for each
MAX_BATCHES = 50  # of a part


class EpochSeededSampler(Sampler[int]):
    """Batches of similar length in an order that depends on the seed and the epoch alone.

    A resumed run meets the same data, and methods with the same seed are compared on the same order. A random order is
    cut into parts, and each part is sorted by length, the longest first, so that a batch needs little padding. The
    longest feature of all comes first, so that what runs out of memory does so at once. (The order of the Trainer's
    `group_by_length`.)

    Args:
        batch_size: features that should be of similar length: those of an optimiser step.
        lengths: tokens of each feature.
        seed: decides the order, with the epoch.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int):
        self.batch_size = batch_size
        self.lengths = lengths
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; the data loader calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        size = self.batch_size * max(1, min(len(self) // (self.batch_size * MIN_PARTS), MAX_BATCHES))
        parts = [
            sorted(order[start : start + size], key=self.lengths.__getitem__, reverse=True)
            for start in range(0, len(order), size)
        ]
        longest = max(range(len(parts)), key=lambda part: self.lengths[parts[part][0]])
        parts[0][0], parts[longest][0] = parts[longest][0], parts[0][0]
        return (index for part in parts for index in part)
