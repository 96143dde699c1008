"""What regression tasks share: a sentence or two, one number, squared error, correlation with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from obert.data.columns import Number
from obert.foundation.errors import UserError
from obert.heads.regression import Regression as Head
from obert.records.record import Score
from obert.statistics.metrics import pearson, pearson_terms
from obert.tasks._sentences import Sentences

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset, DatasetDict


class Regression(Sentences):
    """Sentences, or pairs of them, with one number each."""

    head = Head()
    primary_metric = "pearson"

    def label_column(self) -> Number:
        """A finite number."""
        return Number()

    def load(self) -> DatasetDict:
        """The examples, as `Task.load`. Raises UserError too if all numbers of a split are the same."""
        splits = super().load()
        for name, split in splits.items():
            found = split.unique(self.label_name)
            if len(found) < 2:
                raise UserError(
                    f"source '{self.source}': {self.label_name} is {found[0]:g} in all {len(split)} {name} examples. "
                    "At least two different numbers are needed, or nothing can be correlated with them: raise "
                    f"{'train' if name == 'train' else 'eval'}_examples, or add examples."
                )
        return splits

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The number for each example, and the right one beside it."""
        rows = zip(features["id"], logits[0].squeeze(-1).tolist(), examples[self.label_name], strict=True)
        return [{"id": i, "prediction": given, "label": right} for i, given, right in rows]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Pearson's and Spearman's correlation, times 100; 0 where all predictions are the same."""
        from scipy.stats import spearmanr

        given, expected = ([p[key] for p in predictions] for key in ("prediction", "label"))
        for prediction, x, y in zip(predictions, given, expected, strict=True):
            prediction["terms"] = pearson_terms(x, y)
        constant = len(set(given)) == 1 or len(set(expected)) == 1
        values = {
            "pearson": self.primary(predictions),
            "spearman": 0.0 if constant else 100 * float(spearmanr(given, expected).statistic),
        }
        return {name: Score(value=value, count=len(given)) for name, value in values.items()}

    @staticmethod
    def from_terms(terms: np.ndarray) -> np.ndarray:
        """Pearson's correlation."""
        return pearson(terms)
