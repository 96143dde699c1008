"""Questions of which some have no answer in their paragraph: the score of none, its threshold, SQuAD v2.0's scores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from obert.foundation.errors import UserError
from obert.records.record import Score
from obert.tasks import hashed
from obert.tasks._question_answering import QuestionAnswering

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

FARTHEST = sys.float_info.max


class Unanswerable(QuestionAnswering):
    """Question answering where answers may be empty (Rajpurkar et al. 2018).

    A question without an answer is labelled with the first token, whose score is that of no answer: the lowest of the
    question's features. The answer is empty where this score is further above the best span's than a threshold. The
    threshold is the one of the highest F1 on training questions that are held out for it, whole paragraphs, and is
    never looked for on the validation split. The record has it in its details as `decided`, and scores of exported
    models use it too.
    """

    threshold_examples: float = Field(
        0.05, gt=0, lt=1, description="fraction of the training questions that only the threshold is found on"
    )
    null_threshold: float | None = Field(
        None,
        description="how far the score of no answer must be above the best span's; found for each model by default",
    )

    @property
    def may_lack_answers(self) -> bool:
        return True

    @property
    def _seeks_threshold(self) -> bool:
        return self.may_lack_answers and self.null_threshold is None

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training questions that the threshold is found on."""
        splits = super().read()
        return {**splits, "train": self._divided(splits["train"])[0]} if self._seeks_threshold else splits

    def calibration(self) -> Dataset | None:
        """Training questions that are not trained on, unless a threshold is given."""
        return self._divided(super().read()["train"])[1] if self._seeks_threshold else None

    def _divided(self, train: Dataset) -> tuple[Dataset, Dataset]:
        """What is trained on, and what the threshold is found on: a hash of the paragraph decides."""
        chosen = [hashed(f"threshold|{unit}") < self.threshold_examples for unit in self.units(train)]
        if all(chosen) or not any(chosen):
            raise UserError(
                f"threshold_examples {self.threshold_examples:g} of {len(train)} training questions leaves one part "
                "empty. Use more questions, or set null_threshold."
            )
        return tuple(train.select(i for i, held in enumerate(chosen) if held is part) for part in (False, True))

    def decide(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> dict[str, Any]:
        """The threshold with the highest F1 on these questions."""
        from obert.tasks._metrics import f1_v2

        answered = self._answered(logits, features, examples)
        references = [answers["text"] for answers in examples["answers"]]
        pairs = list(zip(answered, references, strict=True))
        gains = [f1_v2(row["answer"], texts) - f1_v2("", texts) for row, texts in pairs]
        return {"null_threshold": best_threshold([row["null_difference"] for row in answered], gains)}

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """As without unanswerable questions, but empty where the score of no answer is above the threshold.

        `answer` is the best span whatever the threshold, `null_difference` how far the score of no answer is above its.
        The threshold is 0 as long as `decide` has not been asked.
        """
        if not self.may_lack_answers:
            return super().predict(logits, features, examples)
        threshold = self.null_threshold or 0.0
        return [
            {"id": row["id"], "prediction": row["answer"] if row["null_difference"] <= threshold else "", **row}
            for row in self._answered(logits, features, examples)
        ]

    def _answered(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        return [
            {"id": example, "answer": span.text, "null_difference": min(span.none - span.score, FARTHEST)}
            for example, span in self.best_spans(logits, features, examples).items()
        ]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """SQuAD v2.0 exact match and F1 in percent, of all questions and of those with and without an answer."""
        from obert.tasks._metrics import exact_match_v2, f1_v2

        if not self.may_lack_answers:
            return super().score(predictions, examples)
        expected = [answers["text"] for answers in examples["answers"]]
        rows = []
        for row, references in zip(predictions, expected, strict=True):
            row["score"] = f1_v2(row["prediction"], references)
            rows.append((bool(references), exact_match_v2(row["prediction"], references), row["score"]))
        groups = {
            "": rows,
            "has_answer_": [row for row in rows if row[0]],
            "no_answer_": [row for row in rows if not row[0]],
        }
        scores = {}
        for name, group in groups.items():
            if group:
                _, exact, f1 = (sum(values) / len(group) for values in zip(*group, strict=True))
                scores[f"{name}exact_match"] = Score(value=exact, count=len(group))
                scores[f"{name}f1"] = Score(value=f1, count=len(group))
        return scores


def best_threshold(differences: Sequence[float], gains: Sequence[float]) -> float:
    """The difference up to which questions are best answered.

    Args:
        differences: of the scores of no answer and of the best span, for each question.
        gains: what an answer adds to the question's score over none.
    """
    order = np.argsort(differences, kind="stable")
    sorted_differences = np.asarray(differences)[order]
    totals = np.cumsum(np.asarray(gains)[order])
    is_last = np.append(sorted_differences[1:] != sorted_differences[:-1], True)  # equal ones are answered together
    totals = np.where(is_last, totals, -np.inf)
    best = int(totals.argmax())
    return float(sorted_differences[best]) if totals[best] > 0 else float(np.nextafter(sorted_differences[0], -np.inf))
