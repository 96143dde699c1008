"""What extractive question answering tasks share: SQuAD's format, overlapping features, spans, exact match and F1."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from obert.data.columns import Answers, Identifier, Remark, Text
from obert.data.splits import load_splits
from obert.heads.question_answering import QuestionAnswering as Head
from obert.records.record import Score
from obert.tasks import Task

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("context", "question", "answers")
N_BEST = 20
MAX_ANSWER_TOKENS = 30


class Span(NamedTuple):
    """The best span of a question's paragraph, its score, and the score of the first token, which stands for none."""

    text: str
    score: float
    none: float


class QuestionAnswering(Task):
    """Questions whose answer is a span of a paragraph.

    A long paragraph becomes several features that overlap by `doc_stride` tokens. A feature that does not hold the
    whole answer is labelled with the first token, [CLS] (Devlin et al. 2019). A question is cut off at half of
    `max_length`.
    """

    head = Head()
    primary_metric = "f1"

    doc_stride: int = Field(32, ge=0, description="tokens that neighbouring features of one paragraph share")

    @model_validator(mode="after")
    def _room_for_context(self):
        limit = (self.max_length + 1) // 2 - 3  # the longest question and three special tokens take the rest
        if self.doc_stride >= limit:
            raise ValueError(f"doc_stride {self.doc_stride} must be below {limit} for max_length {self.max_length}")
        return self

    @property
    def columns(self) -> tuple[str, str, str]:
        """The source's names of paragraph, question and answers."""
        return COLUMNS

    @property
    def may_lack_answers(self) -> bool:
        """Whether a question may have no answer."""
        return False

    def read(self) -> dict[str, Dataset]:
        """The source's splits in SQuAD's format: answers hold lists `text` and `answer_start` (in characters)."""
        context, question, answers = self.columns
        columns = {
            "id": Identifier(),
            "title": Remark(),
            context: Text(),
            question: Text(),
            answers: Answers(context, self.may_lack_answers),
        }
        splits = load_splits(self.source, columns, together=(context,))
        if self.columns == COLUMNS:
            return splits
        named = {"id": "id", **dict(zip(self.columns, COLUMNS, strict=True))}
        return {name: split.select_columns(list(named)).rename_columns(named) for name, split in splits.items()}

    def units(self, examples: Dataset) -> Iterable[str]:
        """The paragraph, of which there are several questions."""
        return examples["context"]

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One or more features an example.

        Columns beside the model's inputs: `start_positions`, `end_positions` (tokens, inclusive), `length`,
        `example_id`, `context_start` (the first token of the paragraph), and `offset_starts`, `offset_ends`: the
        characters of the paragraph that each of its tokens covers.
        """
        self.check_length(tokenizer)

        def features(batch: dict[str, list]) -> dict[str, list]:
            encoded = tokenizer(
                [self._cut(question, tokenizer) for question in batch["question"]],
                batch["context"],
                truncation="only_second",
                max_length=self.max_length,
                stride=self.doc_stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                padding=False,
            )
            owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
            columns: dict[str, list] = defaultdict(list, {name: encoded[name] for name in encoded})
            for index, (owner, pairs) in enumerate(zip(owners, offsets, strict=True)):
                sequences = encoded.sequence_ids(index)
                first = sequences.index(1)
                spans = np.array(pairs[first : first + sequences.count(1)], dtype=np.int32)
                start, end = _positions(batch["answers"][owner], spans, first)
                columns["start_positions"].append(start)
                columns["end_positions"].append(end)
                columns["length"].append(len(pairs))
                columns["example_id"].append(batch["id"][owner])
                columns["context_start"].append(first)
                columns["offset_starts"].append(spans[:, 0])
                columns["offset_ends"].append(spans[:, 1])
            return dict(columns)

        columns = examples.column_names
        return examples.map(features, batched=True, remove_columns=columns, keep_in_memory=True)

    def _cut(self, question: str, tokenizer: PreTrainedTokenizerBase) -> str:
        question, limit = question.strip(), self.max_length // 2
        if len(question) <= limit:  # a token is at least one character
            return question
        offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= limit else question[: offsets[limit - 1][1]]

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The best-scored span of each example over all its features.

        Candidates are the 20 best starts and ends inside the paragraph, start not after end, at most 30 tokens long;
        the answer is empty if there is none.
        """
        found = self.best_spans(logits, features, examples)
        return [{"id": example, "prediction": span.text} for example, span in found.items()]

    def best_spans(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> dict[str, Span]:
        """For each example by its id, its best span, and the score of none: the lowest of its features."""
        start_logits, end_logits = (scores.float().numpy() for scores in logits)
        contexts = dict(zip(examples["id"], examples["context"], strict=True))
        best = dict.fromkeys(contexts, Span("", -np.inf, np.inf))
        columns = ("example_id", "context_start", "offset_starts", "offset_ends")
        rows = zip(*(features[name] for name in columns), strict=True)
        for index, (example, first, starts, ends) in enumerate(rows):
            inside = slice(first, first + len(starts))
            value, i, j = best_span(start_logits[index, inside], end_logits[index, inside])
            before = best[example]
            none = min(before.none, float(start_logits[index, 0] + end_logits[index, 0]))
            if value > before.score:
                best[example] = Span(contexts[example][starts[i] : ends[j]], value, none)
            else:
                best[example] = before._replace(none=none)
        return best

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """SQuAD v1.1 exact match and F1, in percent; each prediction's `score` is its F1."""
        from obert.tasks._metrics import SquadV1, f1

        given = [p["prediction"] for p in predictions]
        expected = [answers["text"] for answers in examples["answers"]]
        for prediction, references in zip(predictions, expected, strict=True):
            prediction["score"] = f1(prediction["prediction"], references)
        values = SquadV1().compute(predictions=given, references=expected)
        return {name: Score(value=value, count=len(given)) for name, value in values.items()}


def _positions(answers: dict[str, list], spans: np.ndarray, first: int) -> tuple[int, int]:
    """First and last token of the first answer, or (0, 0) if the feature does not hold all of it or there is none.

    Args:
        spans: characters that each token of the paragraph covers, shape [tokens, 2].
        first: position of the first of these tokens.
    """
    if not answers["text"]:
        return 0, 0
    text = answers["text"][0]
    start = answers["answer_start"][0] + len(text) - len(text.lstrip())
    end = start + len(text.strip())
    if not (spans[0, 0] <= start and end <= spans[-1, 1]):
        return 0, 0
    begin = bisect_right(spans[:, 1], start)  # the first token that ends after the answer starts
    stop = bisect_left(spans[:, 0], end) - 1  # the last token that starts before the answer ends
    return (first + begin, first + stop) if begin <= stop else (0, 0)


def best_span(start: np.ndarray, end: np.ndarray) -> tuple[float, int, int]:
    """Score, first and last token of the best allowed span; the score is -inf if none of the best pairs is allowed."""
    starts = np.argsort(-start, kind="stable")[:N_BEST]
    ends = np.argsort(-end, kind="stable")[:N_BEST]
    scores = start[starts][:, None] + end[ends][None, :]
    length = ends[None, :] - starts[:, None] + 1
    scores = np.where((length >= 1) & (length <= MAX_ANSWER_TOKENS), scores, -np.inf)
    i, j = np.unravel_index(np.argmax(scores), scores.shape)
    return float(scores[i, j]), int(starts[i]), int(ends[j])
