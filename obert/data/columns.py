"""What a task takes from its data: kinds of column, each of which checks and converts one value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from obert.data.values import Mended, Unfit, as_list, check_characters, kind_of, parsed, split_words

if TYPE_CHECKING:  # planning must not take the seconds that this import takes
    from datasets.features.features import FeatureType

_WHOLE = re.compile(r"(-?\d+)(?:\.0*)?")


@dataclass(frozen=True)
class Column:
    """A column of a task's data.

    Attributes:
        allowed: what its values may be, in words.
        optional: whether a source may lack the column; then the data lacks it too.
        is_text: whether its values are text that an example is known by.
        needs: other columns of the row that `convert` looks at, by their names in the task.
    """

    allowed: ClassVar[str]
    optional: ClassVar[bool] = False
    is_text: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def convert(self, value: Any, row: Mapping[str, Any]) -> Any:
        """The value as the task is to have it, or a `Mended` one.

        Args:
            row: the whole row, as the source has it.

        Raises:
            Unfit: the value is not allowed.
        """
        raise NotImplementedError

    def feature(self) -> FeatureType:
        """The type of the converted values, as the library `datasets` names it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Column):
    """Text.

    Attributes:
        may_be_blank: whether it may say nothing.
    """

    may_be_blank: bool = False

    is_text: ClassVar[bool] = True

    @property
    def allowed(self) -> str:
        return "text" if self.may_be_blank else "text that is not blank"

    def convert(self, value: Any, row: Mapping[str, Any]) -> str:
        if type(value) is not str:
            raise Unfit(kind_of(value))
        if (not value or value.isspace()) and not self.may_be_blank:
            raise Unfit("is blank")
        if not value.isascii():
            check_characters(value)
        return value

    def feature(self) -> FeatureType:
        from datasets import Value

        return Value("string")


@dataclass(frozen=True)
class Remark(Text):
    """Text that nothing is learnt from: it may be blank or null, and the column may be missing."""

    may_be_blank: bool = True

    optional: ClassVar[bool] = True
    is_text: ClassVar[bool] = False

    def convert(self, value: Any, row: Mapping[str, Any]) -> str:
        return super().convert("" if value is None else value, row)


@dataclass(frozen=True)
class Identifier(Column):
    """What an example is known by in predictions, unique in its split.

    It comes from the column of its name, else from GLUE's `idx`, else from the example's place.
    """

    allowed: ClassVar[str] = "text or a whole number, of which no two in a split are the same"

    def convert(self, value: Any, row: Mapping[str, Any]) -> str:
        if type(value) is int:
            return str(value)
        return Text().convert(value, row)

    def feature(self) -> FeatureType:
        return Text().feature()


@dataclass(frozen=True)
class Number(Column):
    """A finite number, which may be written as text."""

    allowed: ClassVar[str] = "a finite number"

    def convert(self, value: Any, row: Mapping[str, Any]) -> float:
        if value is None or isinstance(value, bool | list | dict):
            raise Unfit(kind_of(value))
        if isinstance(value, str) and (not value or value.isspace()):
            raise Unfit("is blank")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise Unfit("is not a number") from None
        if not math.isfinite(number):
            raise Unfit("is not finite")
        return number

    def feature(self) -> FeatureType:
        from datasets import Value

        return Value("float64")


@dataclass(frozen=True)
class Label(Column):
    """A class: a word, or a whole number from 0, which may be written as text or as a float.

    While a source is read a label is text; `obert.data.labels` then makes it the number of a class.

    Attributes:
        classes: names of the task's classes in the order of their numbers; else the data's own, sorted.
    """

    classes: tuple[str, ...] | None = None

    allowed: ClassVar[str] = "a class: a word, or a whole number from 0"

    def convert(self, value: Any, row: Mapping[str, Any]) -> str:
        kind = type(value)
        if kind is int:
            return str(value)
        if kind is str:
            text = value.strip()
            whole = _WHOLE.fullmatch(text)
            if whole:
                return str(int(whole[1]))
            return Text().convert(text, row)
        if kind is bool:
            return str(value).lower()
        if kind is float:
            if not value.is_integer():  # infinity and NaN are none either
                raise Unfit("is a number that is not whole")
            return str(int(value))
        raise Unfit(kind_of(value))

    def feature(self) -> FeatureType:
        return Text().feature()


@dataclass(frozen=True)
class Texts(Column):
    """A list of texts; as text it is a JSON array.

    Attributes:
        at_least: how many there must be.
    """

    at_least: int = 1

    is_text: ClassVar[bool] = True

    @property
    def allowed(self) -> str:
        return f"a list of at least {self.at_least} texts that are not blank (in CSV and TSV: a JSON array)"

    def convert(self, value: Any, row: Mapping[str, Any]) -> list[str]:
        found = as_list(value)
        if len(found) < self.at_least:
            raise Unfit(f"has {len(found)} entries")
        text = Text()
        for entry in found:
            _convert_entry(text, entry, row)
        return found

    def feature(self) -> FeatureType:
        from datasets import List, Value

        return List(Value("string"))


@dataclass(frozen=True)
class Choice(Column):
    """Which of a row's texts is right: its number from 0, its letter from A, or the text itself.

    Attributes:
        of: the column with the row's texts, a `Texts`.
    """

    of: str

    @property
    def allowed(self) -> str:
        return f"the number of one of '{self.of}' from 0, its letter from A, or its text"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        texts = as_list(row[self.of])
        if value in texts and type(value) is str:
            if texts.count(value) > 1:
                raise Unfit("is the text of several choices")
            return texts.index(value)
        token = Label().convert(value, row)
        if len(token) == 1 and "A" <= token.upper() <= "Z":
            token = str(ord(token.upper()) - ord("A"))
        if not token.isdecimal():
            raise Unfit("is none of the choices")
        if int(token) >= len(texts):
            raise Unfit(f"is beyond the {len(texts)} choices")
        return int(token)

    def feature(self) -> FeatureType:
        from datasets import Value

        return Value("int64")


@dataclass(frozen=True)
class Words(Texts):
    """A sentence as a list of its words; as text it is a JSON array, or words with white space between them."""

    @property
    def allowed(self) -> str:
        return "a list of words (or text: words with white space between them)"

    def convert(self, value: Any, row: Mapping[str, Any]) -> list[str]:
        return super().convert(split_words(value), row)


@dataclass(frozen=True)
class Tags(Label):
    """A label for each word of a row; as text it is a JSON array, or labels with white space between them.

    Attributes:
        words: the column with the row's words, a `Words`.
    """

    words: str = "tokens"

    @property
    def allowed(self) -> str:
        return f"a list of labels, one for each of '{self.words}'"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.words,)

    def convert(self, value: Any, row: Mapping[str, Any]) -> list[str]:
        found, words = as_list(split_words(value)), as_list(split_words(row[self.words]))
        if len(found) != len(words):
            raise Unfit(f"has not as many entries as '{self.words}'")
        label = super()
        tags = []
        for entry in found:
            try:
                tags.append(label.convert(entry, row))
            except Unfit as error:
                raise Unfit(f"has an entry that {error}") from None
        return tags

    def feature(self) -> FeatureType:
        from datasets import List, Value

        return List(Value("string"))


@dataclass(frozen=True)
class Answers(Column):
    """SQuAD's answers, `{"text": [...], "answer_start": [...]}`, starts in characters; or one answer as text.

    A start that does not point at its text, or is missing, is found again where the context holds the text once.

    Attributes:
        context: the column with the paragraph.
        may_be_empty: whether a question may have no answer (SQuAD v2.0).
    """

    context: str = "context"
    may_be_empty: bool = False

    @property
    def allowed(self) -> str:
        empty = ", or empty lists" if self.may_be_empty else ", with one answer at least"
        return (
            f'{{"text": [...], "answer_start": [...]}}{empty}; each answer stands in \'{self.context}\' at its start '
            "(counted in characters from 0), or there once only"
        )

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.context,)

    def convert(self, value: Any, row: Mapping[str, Any]) -> dict[str, list] | Mended:
        texts, given = _answers(value)
        if not texts and not self.may_be_empty:
            raise Unfit("is without an answer, which this task does not allow")
        context = Text().convert(row[self.context], row) if texts else ""
        starts = [_start(context, text, start) for text, start in zip(texts, given, strict=True)]
        converted = {"text": texts, "answer_start": starts}
        wrong = any(start is not None and start != found for start, found in zip(given, starts, strict=True))
        return Mended(converted, "answer_start was wrong and has been found again") if wrong else converted

    def feature(self) -> FeatureType:
        from datasets import List, Value

        return {"text": List(Value("string")), "answer_start": List(Value("int64"))}


def _answers(value: Any) -> tuple[list[str], list[int | None]]:
    """Texts and starts of answers in any form that is allowed; a start is None where none is given."""
    if isinstance(value, str):
        value = parsed(value, "{[") if value.strip() else []
    if isinstance(value, str):
        return [value], [None]
    if isinstance(value, list):  # as in SQuAD's own files, a list of {text, answer_start}
        if not all(isinstance(entry, dict) and "text" in entry for entry in value):
            raise Unfit("is a list of something else than answers")
        value = {name: [entry.get(name) for entry in value] for name in ("text", "answer_start")}
    if not isinstance(value, dict):
        raise Unfit(kind_of(value))
    if "text" not in value:
        raise Unfit("has no 'text'")
    texts = value["text"]
    starts = value.get("answer_start")
    if isinstance(texts, str):
        texts, starts = [texts], None if starts is None else starts if isinstance(starts, list) else [starts]
    texts, starts = as_list(texts), [None] * len(texts) if starts is None else as_list(starts)
    if len(texts) != len(starts):
        raise Unfit("has not as many starts as texts")
    text = Text()
    for entry in texts:
        _convert_entry(text, entry, {})
    if not all(start is None or type(start) is int for start in starts):
        raise Unfit("has a start that is not a whole number")
    return texts, starts


def _start(context: str, text: str, start: int | None) -> int:
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    first = context.find(text)
    if first < 0:
        raise Unfit("has an answer that does not stand in the context")
    if first != context.rfind(text):
        where = "without a start" if start is None else "whose start is wrong"
        raise Unfit(f"has an answer {where} that stands in the context more than once")
    return first


def _convert_entry(column: Column, entry: Any, row: Mapping[str, Any]) -> None:
    try:
        column.convert(entry, row)
    except Unfit as error:
        raise Unfit(f"has an entry that {error}") from None
