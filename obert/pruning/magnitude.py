"""Magnitude pruning (Han et al. 2015; gradual: Zhu and Gupta 2018; on BERT: Kurtic and Alistarh 2022)."""

from torch import Tensor

from obert.pruning import Context, Method


class Magnitude(Method):
    """Scores are absolute values, ranked over all layers together. Nothing is updated."""

    def score(self, context: Context) -> dict[str, Tensor]:
        """|w|."""
        return {name: weight.abs() for name, weight in context.weights.items()}
