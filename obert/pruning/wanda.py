"""Wanda (Sun, Liu, Bair and Kolter 2023, arXiv 2306.11695): magnitude times the norm of the input, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from obert.masks.selection import row_masks
from obert.pruning import Context
from obert.pruning.shared.input_based import InputBased, parts_in_order, restored


class Wanda(InputBased):
    """The score is |w| times the l2 norm of the weight's input over all tokens, compared within a row of the matrix,
    whatever the recipe's `distribution`. Nothing is updated.

    As in the source's code, the model is pruned one layer after the other, from the first: the inputs of a layer's
    matrices are those behind the pruned layers before it. All matrices of a layer see the inputs of the dense layer.
    """

    compares_within: ClassVar = "row"

    def score(self, context: Context) -> dict[str, Tensor]:
        """|w| times the norm of its input."""
        weights, scores = context.weights, {}
        with restored(weights):
            for names in parts_in_order(weights):
                squares = {name: torch.zeros_like(weights[name][0], dtype=torch.float64) for name in names}

                def see(name: str, inputs: Tensor, squares: dict[str, Tensor] = squares) -> None:
                    squares[name] += inputs.square().sum(dim=0)

                self.see_inputs(context, names, see)
                for name in names:
                    scores[name] = (weights[name].abs() * squares[name].sqrt()).float()
                    own = {name: scores[name]}, {name: context.masks[name]}
                    weights[name].mul_(row_masks(*own, context.targets[name], context.pattern)[name])
        return scores

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Scores, the weights as they were, and what the largest matrix is sorted with."""
        return 8 * sum(sizes.values()) + 40 * max(sizes.values())
