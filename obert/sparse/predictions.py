"""What a task's texts are as tokens, and its model's outputs as predictions: one class for each kind of head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from obert.foundation.errors import UserError
from obert.heads.multiple_choice import MultipleChoice as ChoiceHead
from obert.heads.question_answering import QuestionAnswering as SpanHead
from obert.heads.regression import Regression as NumberHead
from obert.heads.sequence_classification import SequenceClassification as ClassHead
from obert.heads.token_classification import TokenClassification as TagHead
from obert.tasks._question_answering import best_span
from obert.tasks.tagging import OUTSIDE, words_of


class Tokens(NamedTuple):
    """One sequence, special tokens included."""

    ids: list[int]
    types: list[int]


Outputs = list[tuple[np.ndarray, ...]]  # of each sequence, scores of tokens as long as it
Run = Callable[[Sequence[Tokens]], Outputs]


class Predictor(ABC):
    """A kind of predictions.

    Args:
        task: with its options.
        labels: names of the classes.
        tokenizer: its file.
        names: of the model's inputs.
    """

    def __init__(self, task: Any, labels: tuple[str, ...], tokenizer: Path, names: tuple[str, ...]):
        self.task, self.labels = task, labels
        self._tokenizer = _tokenizer(tokenizer)
        self._tokenizer.enable_truncation(task.max_length, **self.truncation())

    def truncation(self) -> dict[str, Any]:
        """How long inputs are cut."""
        return {}

    @abstractmethod
    def predictions(self, inputs: Sequence[Any], run: Run) -> list[dict[str, Any]]:
        """One for each input. Raises UserError for an input that is none."""


class Classes(Predictor):
    """One class for a text or a pair of texts."""

    def predictions(self, inputs: Sequence[Any], run: Run) -> list[dict[str, Any]]:
        count = len(self.task.sentences)
        texts = [_texts(item, index, count) for index, item in enumerate(inputs)]
        encoded = self._tokenizer.encode_batch([one[0] if count == 1 else one for one in texts])
        return [self.prediction(outputs[0]) for outputs in run([_tokens(one) for one in encoded])]

    def prediction(self, logits: np.ndarray) -> dict[str, Any]:
        """From scores [classes]."""
        by_label = dict(zip(self.labels, softmax(logits).tolist(), strict=True))
        label = max(by_label, key=by_label.get)
        return {"label": label, "probability": by_label[label], "probabilities": by_label}


class Numbers(Classes):
    """One number for a text or a pair of texts."""

    def prediction(self, logits: np.ndarray) -> dict[str, Any]:
        """From the number, [1]."""
        return {"value": float(logits[0])}


class Spans(Predictor):
    """A span of a context that answers a question."""

    def __init__(self, task: Any, labels: tuple[str, ...], tokenizer: Path, names: tuple[str, ...]):
        super().__init__(task, labels, tokenizer, names)
        self._plain = _tokenizer(tokenizer)  # without any cut
        self._may_lack_answers = getattr(task, "may_lack_answers", False)

    def truncation(self) -> dict[str, Any]:
        return {"stride": self.task.doc_stride, "strategy": "only_second"}

    def predictions(self, inputs: Sequence[Any], run: Run) -> list[dict[str, Any]]:
        pairs = [_texts(item, index, 2, "question and context") for index, item in enumerate(inputs)]
        encoded = self._tokenizer.encode_batch([(self._cut(question), context) for question, context in pairs])
        windows = [[one, *one.overflowing] for one in encoded]
        outputs = iter(run([_tokens(window) for several in windows for window in several]))
        return [
            self._prediction(context, [(window, *next(outputs)) for window in several])
            for (_, context), several in zip(pairs, windows, strict=True)
        ]

    def _cut(self, question: str) -> str:
        """As the task cuts it."""
        question, limit = question.strip(), self.task.max_length // 2
        offsets = self._plain.encode(question, add_special_tokens=False).offsets
        return question if len(offsets) <= limit else question[: offsets[limit - 1][1]]

    def _prediction(self, context: str, windows: list[tuple[Encoding, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        best, none = (-np.inf, None, None, 0.0), (np.inf, 0.0)
        for window, start, end in windows:
            inside = [place for place, part in enumerate(window.sequence_ids) if part == 1]
            probability = softmax(start), softmax(end)
            if start[0] + end[0] < none[0]:
                none = float(start[0] + end[0]), float(probability[0][0] * probability[1][0])
            if not inside:
                continue
            here = slice(inside[0], inside[-1] + 1)
            value, first, last = best_span(start[here], end[here])
            if value > best[0]:
                first, last = inside[first], inside[last]
                span = window.offsets[first][0], window.offsets[last][1]
                best = value, *span, float(probability[0][first] * probability[1][last])
        value, begin, stop, score = best
        if begin is None or (self._may_lack_answers and none[0] - value > (self.task.null_threshold or 0.0)):
            return {"answer": "", "start": None, "stop": None, "score": none[1]}
        return {"answer": context[begin:stop], "start": begin, "stop": stop, "score": score}


class Tags(Predictor):
    """A tag for each word of a text."""

    def predictions(self, inputs: Sequence[Any], run: Run) -> list[dict[str, Any]]:
        words = [_texts(item, index, 1)[0].split() for index, item in enumerate(inputs)]
        encoded = self._tokenizer.encode_batch([" ".join(several) for several in words])
        windows = [[one, *one.overflowing] for one in encoded]
        outputs = iter(run([_tokens(window) for several in windows for window in several]))
        return [
            self._prediction(several, [(window, next(outputs)[0]) for window in parts])
            for several, parts in zip(words, windows, strict=True)
        ]

    def _prediction(self, words: list[str], windows: list[tuple[Encoding, np.ndarray]]) -> dict[str, Any]:
        """A word's first piece stands for it. One that the tokenizer makes nothing of is outside."""
        labels, probabilities, last = [OUTSIDE] * len(words), [1.0] * len(words), -1
        for window, logits in windows:
            for place, word in enumerate(words_of(words, window.offsets)):
                if word is not None and word > last:
                    found = softmax(logits[place])
                    labels[word], probabilities[word] = self.labels[int(found.argmax())], float(found.max())
                    last = word
        return {"words": words, "labels": labels, "probabilities": probabilities}


class Choices(Predictor):
    """One of a question's choices, each a sequence that the task puts together."""

    def __init__(self, task: Any, labels: tuple[str, ...], tokenizer: Path, names: tuple[str, ...]):
        from transformers import PreTrainedTokenizerFast

        super().__init__(task, labels, tokenizer, names)
        if not (settings := tokenizer.with_name("tokenizer_config.json")).is_file():
            raise UserError(f"{settings}, which names the special tokens, is missing: put the trained model's there")
        self._whole = PreTrainedTokenizerFast.from_pretrained(tokenizer.parent, model_input_names=list(names))

    def predictions(self, inputs: Sequence[Any], run: Run) -> list[dict[str, Any]]:
        from obert.tasks._multiple_choice import Option

        options, ends = [], [0]
        for index, item in enumerate(inputs):
            question, choices, context = _choices(item, index)
            options += [Option(question, choice, context) for choice in choices]
            ends.append(len(options))
        if not options:
            return []
        encoded = self.task.sequences(options, self._whole)
        ids = encoded["input_ids"]
        types = encoded.get("token_type_ids") or [[0] * len(tokens) for tokens in ids]
        scores = [float(outputs[0][0]) for outputs in run([Tokens(*one) for one in zip(ids, types, strict=True)])]
        found = [softmax(np.array(scores[start:stop])) for start, stop in pairwise(ends)]
        return [{"choice": int(one.argmax()), "probabilities": one.tolist()} for one in found]


_KINDS = {ClassHead: Classes, NumberHead: Numbers, SpanHead: Spans, TagHead: Tags, ChoiceHead: Choices}


def predictor(task: Any, labels: tuple[str, ...], tokenizer: Path, names: tuple[str, ...]) -> Predictor:
    """What makes predictions of a task's model; see `Predictor`. Raises UserError for a head that has none here."""
    kind = _KINDS.get(type(task.head))
    if kind is None:
        raise UserError(
            f"models with the head {type(task.head).__name__} have no predictions of texts here. Allowed: "
            f"{', '.join(head.__name__ for head in _KINDS)}. SparseModel.load runs them from arrays to arrays"
        )
    return kind(task, labels, tokenizer, names)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max())
    return raised / raised.sum()


def _tokenizer(path: Path) -> Tokenizer:
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path} is no tokenizer: {error}") from None
    found.no_padding()
    found.no_truncation()
    return found


def _tokens(encoded: Encoding) -> Tokens:
    return Tokens(encoded.ids, encoded.type_ids)


def _texts(item: Any, index: int, count: int, names: str = "texts") -> tuple[str, ...]:
    """The texts of an input, of which there are one or two."""
    found = (item,) if isinstance(item, str) else item
    is_text = isinstance(found, Sequence) and len(found) == count and all(isinstance(text, str) for text in found)
    if not is_text or (count > 1 and isinstance(item, str)):
        wanted = "a text" if count == 1 else f"a pair of {names}"
        raise UserError(f"input {index} is {_kind(item)}: {wanted} is needed")
    return tuple(found)


def _choices(item: Any, index: int) -> tuple[str, Sequence[str], str]:
    """Question, choices and context of an input."""
    found = item if isinstance(item, Mapping) else {}
    question, choices, context = found.get("question"), found.get("choices"), found.get("context", "")
    listed = isinstance(choices, (list, tuple)) and len(choices) > 0
    if not listed or not all(isinstance(text, str) for text in (question, context, *choices)):
        raise UserError(
            f"input {index} is {_kind(item)}: a mapping of a text `question`, a list of texts `choices`, and a text "
            "`context` where the task has one is needed"
        )
    return question, choices, context


def _kind(item: Any) -> str:
    """What an input is, in words."""
    if isinstance(item, str):
        return "a text"
    sizes = f" of {len(item)}" if isinstance(item, (list, tuple)) else ""
    return f"of type {type(item).__name__}{sizes}"
