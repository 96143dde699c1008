"""A value of a data file: what it is, the forms that it may have in a text file, and why it is refused."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

_KINDS = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class Unfit(Exception):
    """A value that a column does not take. Its text says what is wrong, without the value: `is blank`."""


class Mended(NamedTuple):
    """A value that was wrong and could be put right, and how, which is counted and said."""

    value: Any
    how: str


def as_list(value: Any) -> list:
    """A list, or the JSON array that a text is. Raises Unfit: it is neither."""
    if isinstance(value, str):
        value = parsed(value, "[")
    if not isinstance(value, list):
        raise Unfit(kind_of(value))
    return value


def parsed(text: str, opening: str) -> Any:
    """The JSON that a text holds if it begins with one of these brackets and is some, else the text."""
    if text.lstrip()[:1] not in opening:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def split_words(value: Any) -> Any:
    """White space taken to separate words, where text is not a JSON array."""
    found = parsed(value, "[") if isinstance(value, str) and value.strip() else value
    return found.split() if isinstance(found, str) else found


def check_characters(text: str) -> None:
    """Raise Unfit if a text cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit("holds half of a character (a lone surrogate)") from None


def kind_of(value: Any) -> str:
    """What a value is that should have been something else."""
    return f"is {_KINDS.get(type(value), type(value).__name__)}"
