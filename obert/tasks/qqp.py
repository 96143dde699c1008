"""QQP: do two questions ask the same (Quora question pairs, as in GLUE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from obert.tasks._classification import Classification

if TYPE_CHECKING:
    from evaluate import Metric


class QQP(Classification):
    """Accuracy and the F1 of duplicates, which are the smaller class."""

    labels = ("not_duplicate", "duplicate")
    hub_config = "qqp"
    sentences = ("question1", "question2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")

    def metric(self) -> Metric:
        from obert.tasks._metrics import AccuracyAndF1

        return AccuracyAndF1()
