"""CoLA: is a sentence acceptable English (Warstadt et al. 2019, as in GLUE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from obert.records.record import Score
from obert.statistics.metrics import matthews
from obert.tasks._classification import Classification

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

KINDS = ((True, True), (False, False), (True, False), (False, True))  # predicted, and truly, acceptable


class CoLA(Classification):
    """Judged by Matthews correlation, as 70 % of the sentences are acceptable; in percent, as accuracy is."""

    labels = ("unacceptable", "acceptable")
    primary_metric = "matthews"
    hub_config = "cola"

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Matthews correlation times 100, and accuracy. An example's terms say which of four kinds it is."""
        scores = super().score(predictions, examples)
        positive = self.classes(examples)[1]
        for prediction in predictions:
            del prediction["score"]
            kind = (prediction["prediction"] == positive, prediction["label"] == positive)
            prediction["terms"] = [int(kind == (given, right)) for given, right in KINDS]
        return {"matthews": Score(value=self.primary(predictions), count=len(predictions)), **scores}

    @staticmethod
    def from_terms(terms: np.ndarray) -> np.ndarray:
        """Matthews correlation."""
        return matthews(terms)
