"""Multiple choice on own data: a question, its choices, and which of them is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from obert.data.columns import Column, Identifier, Text, Texts
from obert.data.splits import load_splits, without_shared
from obert.tasks._multiple_choice import Answer, Encoded, MultipleChoice, Option, pairs
from obert.tasks._own_columns import SOURCE, check_distinct

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _AnswerAmong(Answer):
    """Which of several columns holds the right choice."""

    several: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        return f"the number of one of {', '.join(self.several)} from 0, its letter from A, or its text"

    @property
    def needs(self) -> tuple[str, ...]:
        return self.several

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        return super().convert(value, {self.of: [row[name] for name in self.several]})


class OwnMultipleChoice(MultipleChoice):
    """Question and choice are a pair of texts; where there is a passage it comes first, and the question stands before
    the choice."""

    source: str = Field(description=SOURCE)
    question: str = Field("question", description="the column of the question")
    choices: str | tuple[str, ...] = Field(
        "choices", min_length=1, description="the column of the choices, which is a list, or a list of columns"
    )
    label: str = Field(
        "label", description="the column that says which choice is right: its number from 0, its letter, or its text"
    )
    context: str | None = Field(None, description="the column of a passage, where there is one")

    @model_validator(mode="after")
    def _distinct(self):
        if len(self._several) == 1:
            raise ValueError("choices is a list of one column: name the column itself if it holds lists of choices")
        check_distinct(("id", self.question, *(self._several or (self.choices,)), self.label, self.context or ""))
        return self

    @property
    def _several(self) -> tuple[str, ...]:
        """The columns of the choices, where there are several."""
        return () if isinstance(self.choices, str) else self.choices

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training questions that are in validation too."""
        columns: dict[str, Column] = {"id": Identifier(), self.question: Text()}
        if self.context is not None:
            columns[self.context] = Text()
        if self._several:
            columns |= {name: Text() for name in self._several}
            columns[self.label] = _AnswerAmong("choices", self._several)
        else:
            columns |= {self.choices: Texts(at_least=2), self.label: Answer(self.choices)}
        splits = load_splits(self.source, columns, together=(self.context or self.question,))
        return without_shared({name: self._renamed(split) for name, split in splits.items()}, self.units)

    def _renamed(self, split: Dataset) -> Dataset:
        names = {"id": "id", self.question: "question", self.label: "label"}
        if self.context is not None:
            names[self.context] = "context"
        if not self._several:
            names[self.choices] = "choices"
        kept = split.select_columns(list(names)).rename_columns(names)
        if self._several:
            rows = zip(*(split[name] for name in self._several), strict=True)
            kept = kept.add_column("choices", list(map(list, rows)))
        return kept

    def sequences(self, options: Sequence[Option], tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """Pairs as the tokenizer makes them, cut at the end of the first text where there is no room."""
        if self.context is None:
            first, second = [o.question for o in options], [o.choice for o in options]
        else:
            first, second = [o.context for o in options], [f"{o.question} {o.choice}" for o in options]
        return pairs(first, second, tokenizer, self.max_length, cut="first")
