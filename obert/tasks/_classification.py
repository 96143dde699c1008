"""What classification tasks share: a sentence or two, one class, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from obert.data.columns import Label
from obert.heads.sequence_classification import SequenceClassification
from obert.records.record import Score
from obert.statistics.collapse import collapse
from obert.tasks._sentences import Sentences

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from evaluate import Metric


class Classification(Sentences):
    """Sentences, or pairs of them, of one class each.

    Attributes:
        labels: the classes in the order of their numbers; None for those that the data has.
    """

    head = SequenceClassification()
    primary_metric = "accuracy"
    labels: ClassVar[tuple[str, ...] | None] = None

    def label_column(self) -> Label:
        """A class, by its name or number."""
        return Label(classes=self.labels)

    def classes(self, examples: Dataset) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return tuple(examples.features[self.label_name].names)

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The class with the highest score, for each example, by its name, and the right one beside it."""
        names = self.classes(examples)
        rows = zip(features["id"], logits[0].argmax(-1).tolist(), examples[self.label_name], strict=True)
        return [{"id": i, "prediction": names[given], "label": names[right]} for i, given, right in rows]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Metrics in percent; each prediction's `score` is 100 if it is right, or 0."""
        numbers = {name: number for number, name in enumerate(self.classes(examples))}
        given, expected = ([numbers[p[key]] for p in predictions] for key in ("prediction", "label"))
        for prediction in predictions:
            prediction["score"] = 100.0 * (prediction["prediction"] == prediction["label"])
        values = self.metric().compute(predictions=given, references=expected)
        return {name: Score(value=value, count=len(given)) for name, value in values.items()}

    def remarks(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Any]:
        """Whether the model has learnt anything: `collapse`, over the examples that the primary metric counts."""
        counted = [p for p in predictions if p.get("score", 0) is not None]
        given, expected = ([p[key] for p in counted] for key in ("prediction", "label"))
        return collapse(given, expected, [g == e for g, e in zip(given, expected, strict=True)])

    def metric(self) -> Metric:
        """What classes are compared with, by their numbers."""
        from obert.tasks._metrics import Accuracy

        return Accuracy()


class ClassificationWithF1(Classification):
    """Of two classes; judged by the F1 of the second too, as GLUE judges tasks whose classes are uneven."""

    def metric(self) -> Metric:
        from obert.tasks._metrics import AccuracyAndF1

        return AccuracyAndF1()
