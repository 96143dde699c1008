"""The tokens of a batch in one stream without padding, and where in it each sequence is.

A sequence begins at a multiple of `COLUMN` tokens, so that a vector of that many belongs to one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLUMN = 16
MASKED = np.float32(np.finfo(np.float32).min)  # what `transformers` adds to the scores of keys that are masked


@dataclass(frozen=True, eq=False)
class Stream:
    """A batch as the kernels read it.

    Attributes:
        starts: int64 [sequences], the place of the first token of each.
        kept: int64 [sequences], how many tokens of each are in the stream: up to the last one that is not masked.
        source: int64 [places], the token's place in the flattened batch; -1 in the gaps between sequences.
        length: of the padded batch.
        mask: float32 [places] to add to the scores of keys, None where all kept tokens are attended to.
        masked: bool [sequences], whose scores have something added.
    """

    starts: np.ndarray
    kept: np.ndarray
    source: np.ndarray
    length: int
    mask: np.ndarray | None
    masked: np.ndarray

    def gather(self, values: np.ndarray, shift: int = 0) -> np.ndarray:
        """Indices [places] of what stands `shift` places further on in the padded batch; -1 where nothing does."""
        if not shift:
            return np.where(self.source < 0, -1, values.ravel()[self.source])
        column = self.source % self.length + shift
        inside = (self.source >= 0) & (column >= 0) & (column < self.length)
        return np.where(inside, values.ravel()[np.where(inside, self.source + shift, 0)], -1)

    def scatter(self, found: np.ndarray) -> np.ndarray:
        """Values of the places, [places, ...], in the padded batch, [sequences, length, ...]; zeros at padding."""
        padded = np.zeros((len(self.starts) * self.length, *found.shape[1:]), found.dtype)
        real = self.source >= 0
        padded[self.source[real]] = found[real]
        return padded.reshape(len(self.starts), self.length, *found.shape[1:])


def stream(mask: np.ndarray) -> Stream:
    """The stream of a batch. `mask`: [sequences, tokens], 0 where a token is not attended to."""
    attended = mask != 0
    sequences, length = attended.shape
    last = length - np.argmax(attended[:, ::-1], axis=1)
    kept = np.where(attended.any(axis=1), last, length).astype(np.int64)
    columns = -(-kept // COLUMN) * COLUMN
    starts = np.concatenate([[0], np.cumsum(columns)[:-1]]).astype(np.int64)
    owner = np.repeat(np.arange(sequences), columns)
    place = np.arange(len(owner)) - starts[owner]
    source = np.where(place < kept[owner], owner * length + place, -1)
    masked = attended.sum(axis=1) != kept
    added = None
    if masked.any():
        added = np.where(attended.ravel()[source] | (source < 0), np.float32(0), MASKED).astype(np.float32)
    return Stream(starts, kept, source, length, added, masked)
