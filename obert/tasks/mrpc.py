"""MRPC: do two sentences of the news say the same (Dolan and Brockett 2005, as in GLUE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from obert.tasks._classification import Classification

if TYPE_CHECKING:
    from evaluate import Metric


class MRPC(Classification):
    """Accuracy and the F1 of paraphrases, which are two thirds of the pairs."""

    labels = ("not_equivalent", "equivalent")
    hub_config = "mrpc"
    sentences = ("sentence1", "sentence2")

    source: str = Field("nyu-mll/glue", description="a Hugging Face Hub name, or a local directory")

    def metric(self) -> Metric:
        from obert.tasks._metrics import AccuracyAndF1

        return AccuracyAndF1()
