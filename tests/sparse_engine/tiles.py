"""Tiles of tokens as the sparse engine's kernels read them, from and to matrices of one row a token."""

import numpy as np

from obert.sparse.kernels.arrays import aligned


def to_tiles(values: np.ndarray, lanes: int, filler: float = np.nan) -> np.ndarray:
    """[tile][feature][lanes] of [tokens, features]; columns behind the last token hold the filler."""
    tokens, features = values.shape
    tiles = aligned((-(-tokens // lanes), features, lanes), values.dtype)
    padded = np.full((len(tiles) * lanes, features), filler).astype(values.dtype)
    padded[:tokens] = values
    tiles[...] = padded.reshape(len(tiles), lanes, features).transpose(0, 2, 1)
    return tiles


def from_tiles(tiles: np.ndarray) -> np.ndarray:
    """[tokens, features] of [tile][feature][lanes]."""
    return tiles.transpose(0, 2, 1).reshape(-1, tiles.shape[1])
