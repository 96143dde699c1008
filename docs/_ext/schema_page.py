"""Pydantic models as Markdown: a table of fields for each model, and one for each model that its fields lead to."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

NAME = r"^[a-z0-9_]+$"
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def anchor(name: str) -> str:
    """The link target of a model's section."""
    return f"schema-{name.lower()}"


def describe(model: type[BaseModel], title: str, level: int, known: set[str]) -> Iterator[str]:
    """Lines of Markdown for a model and what it leads to, leaving out the models that are `known` already.

    Args:
        title: heading of the model's section.
        level: of that heading; models it leads to are one level below.
        known: names of the models described so far; grows.
    """
    schema = model.model_json_schema(by_alias=True)
    parts = schema.pop("$defs", {})
    yield from _section(schema, title, model.__name__, level, own_text(model))
    known.add(model.__name__)
    for name, part in parts.items():
        if name not in known:
            known.add(name)
            yield from _section(part, name, name, level + 1, part.get("description", ""))


def own_text(model: type) -> str:
    """A class's own docstring, or nothing: not that of its base class."""
    return inspect.cleandoc(model.__doc__ or "") if "__doc__" in vars(model) else ""


def _section(schema: dict[str, Any], title: str, name: str, level: int, text: str) -> Iterator[str]:
    yield from (f"({anchor(name)})=", f"{'#' * level} {title}", "", text, "")
    fields = schema.get("properties", {})
    if not fields:
        yield from ("It has no fields.", "")
        return
    required = schema.get("required", [])
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    for field, content in fields.items():
        default = "required" if field in required else _default(content.get("default"))
        meaning = content.get("description", "")
        yield f"| `{field}` | {_type(content)} | {default} | {_cell(meaning)} |"
    yield ""


def _cell(text: str) -> str:
    """Text that a cell of a table can hold. A backslash before `<` would show in code, which needs none."""
    parts = " ".join(text.split()).replace("|", r"\|").split("`")
    return "`".join(part if index % 2 else part.replace("<", r"\<") for index, part in enumerate(parts))


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if value in ("", [], {}):
        return "empty"
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _type(content: dict[str, Any]) -> str:
    """What a value must be, in words."""
    if "$ref" in content:
        name = content["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    if "const" in content:
        return f"`{content['const']}`"
    if "enum" in content:
        return " or ".join(f"`{value}`" for value in content["enum"])
    if "anyOf" in content:
        kinds = [_type(kind) for kind in content["anyOf"] if kind.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = content.get("type")
    if kind == "array":
        inner = content.get("items") or {}
        return f"list of {_type(inner)}" if inner else "list"
    if kind == "object":
        inner = content.get("additionalProperties")
        return f"mapping of names to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    if kind is None:
        return "any value"
    word = "name" if content.get("pattern") == NAME else WORDS[kind]
    bounds = [text.format(f"{content[key]:g}") for key, text in BOUNDS.items() if key in content]
    return ", ".join((word, *bounds))
