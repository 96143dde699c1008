"""Options by which a user's own data says which of its columns are text and label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, Field, field_validator, model_validator

SOURCE = "a folder, one file (CSV, TSV, JSON lines, Parquet), wheel:<asset>, or a Hub name[:configuration]"


def check_distinct(names: Iterable[str]) -> None:
    """Raise ValueError if a column is named twice."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"column '{twice[0]}' is named twice: each stands for something of its own, as id does")


class OwnColumns(BaseModel):
    """Stands before `Sentences` among a kind's bases, in place of the columns that a task has of its own."""

    source: str = Field(description=SOURCE)
    text: tuple[str, ...] = Field(("sentence",), description="the column of the text, or a list of two for pairs")
    label: str = Field("label", description="the column of the label")

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_two(cls, value: object) -> object:
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list | tuple) and len(names) not in (1, 2):
            raise ValueError(f"{len(names)} columns: one column of text is allowed, or two for pairs")
        return names

    @model_validator(mode="after")
    def _distinct(self):
        check_distinct((*self.text, self.label, "id"))
        return self

    @property
    def sentences(self) -> tuple[str, ...]:
        """The columns of the text."""
        return self.text

    @property
    def label_name(self) -> str:
        """The label's column."""
        return self.label
