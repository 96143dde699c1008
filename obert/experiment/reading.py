"""Contents of files as validated schemas; each mistake is told with file, key and the closest valid name."""

from typing import Any

from pydantic import BaseModel, ValidationError

from obert.foundation.errors import UserError, unknown_name

MOST, LONGEST = 20, 500  # problems that are told at once, and characters of what is told of one


def validate(schema: type[BaseModel], content: dict[str, Any], where: str):
    """`content` as a `schema`. Raises UserError that names file and key of each problem, closest valid key first."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines, problems = [], error.errors()
        for problem in problems:
            if problem["type"] == "too_short" and any(_is_inside(other["loc"], problem["loc"]) for other in problems):
                continue  # short only because of the items that are told of
            key = _shortened(".".join(str(part) for part in problem["loc"]))
            if problem["type"] == "extra_forbidden":
                name, allowed = _shortened(str(problem["loc"][-1])), _fields_at(schema, problem["loc"][:-1])
                lines.append(str(unknown_name("key", name, allowed, f"{where}, at '{key}'")))
            else:
                found = "" if isinstance(problem["input"], dict) else f" (found {_shortened(repr(problem['input']))})"
                lines.append(f"{where}{f', key {key!r}' if key else ''}: {_shortened(problem['msg'])}{found}")
        told, others = lines[:MOST], len(lines) - MOST
        raise UserError("\n".join([*told, f"and {others} more"] if others > 0 else told)) from None


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _is_inside(location: tuple, outer: tuple) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


def _fields_at(schema: type[BaseModel], location: tuple) -> list[str]:
    """Field names of the model that `location` leads to inside `schema`."""
    for part in location:
        field = schema.model_fields.get(str(part))
        if field is None:  # an index into a tuple, or a key of a mapping: the schema stays the same
            continue
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
        schema = models[0] if models else schema
    return list(schema.model_fields)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result
