"""MNLI: does a premise entail, contradict or leave open a hypothesis (Williams et al. 2018, as in GLUE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from obert.data.splits import has_split, without_shared
from obert.records.record import Score
from obert.tasks._classification import Classification

if TYPE_CHECKING:
    from datasets import Dataset

MISMATCHED = "validation_mismatched"


class MNLI(Classification):
    """Judged on the matched validation set, whose genres are those of the training data.

    Where the source has the mismatched one too, `accuracy_mismatched` is over that. Its examples follow the matched
    ones in validation, with ids that begin with `mismatched-`, and count in no other metric.
    """

    labels = ("entailment", "neutral", "contradiction")
    hub_config = "mnli"
    sentences = ("premise", "hypothesis")
    validation_split = "validation_matched"

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")

    def read(self) -> dict[str, Dataset]:
        """The splits, with the mismatched validation set if there is one; no training pair is in either of both."""
        splits = super().read()
        if has_split(self.source, MISMATCHED, self.hub_config):
            further = self.read_splits(MISMATCHED)["validation"]
            ids = [f"mismatched-{number}" for number in further["id"]]
            further = further.remove_columns("id").add_column("id", ids).select_columns(further.column_names)
            train = without_shared({"train": splits["train"], "validation": further}, self.units)["train"]
            splits = {**splits, "train": train, MISMATCHED: further}
        return splits

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Accuracy in percent, over each of the two sets; the `score` of a mismatched example is None."""
        further = [p for p in predictions if p["id"].startswith("mismatched-")]
        scores = super().score([p for p in predictions if not p["id"].startswith("mismatched-")], examples)
        if further:
            scores["accuracy_mismatched"] = super().score(further, examples)["accuracy"]
        for prediction in further:
            prediction["score"] = None
        return scores
