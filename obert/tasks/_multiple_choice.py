"""What multiple-choice tasks share: a question with its choices, one sequence a choice, one softmax over them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from obert.data.columns import Choice
from obert.data.values import Unfit
from obert.foundation.errors import UserError
from obert.heads.multiple_choice import MultipleChoice as Head
from obert.records.record import Score
from obert.statistics.collapse import collapse
from obert.tasks import Task
from obert.tasks._sentences import normalised

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Encoded = dict[str, list[list[int]]]


class Option(NamedTuple):
    """A question, with a passage where there is one, and one of its choices."""

    question: str
    choice: str
    context: str


@dataclass(frozen=True)
class Answer(Choice):
    """Which of a row's choices is right; test splits, which hide it, are refused."""

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        if value is None or value == "":
            raise Unfit("hides the answer, as test splits do: name a split with answers")
        return super().convert(value, row)


class MultipleChoice(Task):
    """Questions, each with as many choices.

    A subclass reads the columns `id`, `question`, `choices` (a list) and `label` (the number of the right one), and
    `context` where there is a passage, and says what the sequence of a choice is. A choice that is the best together
    with another counts as right if it comes first.
    """

    head = Head()
    primary_metric = "accuracy"

    max_length: int = Field(128, gt=8, description="tokens of a choice's sequence, special tokens included")

    @abstractmethod
    def sequences(self, options: Sequence[Option], tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """Inputs of the model for each option, and what else the head needs of it, each a list."""

    def units(self, examples: Dataset) -> Iterator[str]:
        """The question with its choices, without differences in case, white space and order."""
        for question, choices in zip(examples["question"], examples["choices"], strict=True):
            yield normalised(question, *sorted(choices))

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature a question: inputs are lists [choices][tokens].

        Columns beside them: `labels`, `id`, and `length`, the tokens of the longest choice.

        Raises:
            UserError: `max_length` is more than the model takes, a sequence that must not be cut is longer, or
                questions have different numbers of choices.
        """
        self.check_length(tokenizer)
        self._check_choices(examples)

        def features(batch: dict[str, list]) -> dict[str, list]:
            contexts = batch.get("context", [""] * len(batch["id"]))
            rows = list(zip(batch["question"], batch["choices"], contexts, strict=True))
            options = [Option(question, choice, context) for question, choices, context in rows for choice in choices]
            count = len(batch["choices"][0])
            encoded = {
                name: [values[start : start + count] for start in range(0, len(options), count)]
                for name, values in self.sequences(options, tokenizer).items()
            }
            lengths = [max(map(len, sequences)) for sequences in encoded["input_ids"]]
            self._check_lengths(batch["id"], lengths)
            return {**encoded, "labels": batch["label"], "length": lengths, "id": batch["id"]}

        columns = examples.column_names
        return examples.map(features, batched=True, remove_columns=columns, keep_in_memory=True)

    def _check_choices(self, examples: Dataset) -> None:
        counts = list(map(len, examples["choices"]))
        for example, count in zip(examples["id"], counts, strict=True):
            if count != counts[0]:
                raise UserError(
                    f"source '{self.source}': question '{example}' has {count} choices, and '{examples['id'][0]}' has "
                    f"{counts[0]}. All questions need the same number."
                )

    def _check_lengths(self, ids: list[str], lengths: list[int]) -> None:
        longest = max(lengths)
        if longest > self.max_length:
            raise UserError(
                f"max_length {self.max_length}: question '{ids[lengths.index(longest)]}' takes {longest} tokens, and "
                "no part of it can be left out. Raise max_length, or take the question out of the data."
            )

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The number of each question's best choice, and the scores of all of them."""
        best = logits[0].argmax(-1).tolist()
        rows = zip(features["id"], best, logits[0].tolist(), strict=True)
        return [{"id": i, "prediction": choice, "scores": scores} for i, choice, scores in rows]

    def is_right(self, prediction: Mapping[str, Any], label: int) -> bool:
        """Whether a prediction counts as right."""
        return prediction["prediction"] == label

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Accuracy in percent; each prediction's `score` is 100 if it is right, or 0."""
        for prediction, label in zip(predictions, examples["label"], strict=True):
            prediction["score"] = 100.0 * self.is_right(prediction, label)
        value = sum(prediction["score"] for prediction in predictions) / len(predictions)
        return {"accuracy": Score(value=value, count=len(predictions))}

    def remarks(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Any]:
        """Whether the model has learnt anything.

        `ties` counts questions whose best score is that of several choices; the others are `collapse`'s.
        """
        return {
            "ties": sum(row["scores"].count(max(row["scores"])) > 1 for row in predictions),
            **collapse(
                [row["prediction"] for row in predictions],
                examples["label"],
                [row["score"] == 100 for row in predictions],
            ),
        }


def pairs(
    first: Sequence[str], second: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, cut: str
) -> Encoded:
    """Pairs of texts as the tokenizer's model has met them.

    Args:
        cut: `first` or `second`: of which of the two the end is left out where they are too long. The other one is cut
            at half of `max_length`.
    """
    whole = second if cut == "first" else first
    whole = [_shortened(text, max_length // 2 - 2, tokenizer) for text in whole]  # RoBERTa has four special tokens
    texts = (first, whole) if cut == "first" else (whole, second)
    return dict(tokenizer(*map(list, texts), truncation=f"only_{cut}", max_length=max_length, padding=False))


def joined(
    first: Sequence[list[int]],
    second: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    separators: int,
) -> Encoded:
    """`<s> first </s> second </s>` of tokens, with one or two `</s>` between them, whatever the model is used to."""
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    heads = [[start, *tokens, *[end] * separators] for tokens in first]
    tails = [[*tokens, end] for tokens in second]
    return inputs_of(list(zip(heads, tails, strict=True)), tokenizer)


def inputs_of(parts: Sequence[tuple[list[int], ...]], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Inputs of sequences that are put together of parts, special tokens included; the parts' numbers are types."""
    encoded: Encoded = {"input_ids": [[token for part in parts_ for token in part] for parts_ in parts]}
    encoded["attention_mask"] = [[1] * len(tokens) for tokens in encoded["input_ids"]]
    if "token_type_ids" in tokenizer.model_input_names:
        encoded["token_type_ids"] = [[i for i, part in enumerate(parts_) for _ in part] for parts_ in parts]
    return encoded


def tokens_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of each text alone, without special ones."""
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def _shortened(text: str, limit: int, tokenizer: PreTrainedTokenizerBase) -> str:
    if len(text) <= limit:  # a token is at least one character
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text if len(offsets) <= limit else text[: offsets[limit - 1][1]]
