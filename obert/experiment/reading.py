"""YAML files as validated schemas; each mistake is told with file, key and the closest valid name."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from obert.foundation.errors import UserError, unknown_name


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys silently; a configuration must not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(k, deep=deep) for k, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{node.start_mark.name}, line {node.start_mark.line + 1}: key '{key}' appears twice")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises UserError if the file is missing, malformed or no mapping."""
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise unknown_name("file", str(path), map(str, path.parent.glob("*.yaml"))) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys to values, found {type(content).__name__}")
    return content


def validate(schema: type[BaseModel], content: dict[str, Any], where: str):
    """`content` as a `schema`. Raises UserError that names file and key of each problem, closest valid key first."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines, problems = [], error.errors()
        for problem in problems:
            if problem["type"] == "too_short" and any(_is_inside(other["loc"], problem["loc"]) for other in problems):
                continue  # short only because of the items that are told of
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                allowed = _fields_at(schema, problem["loc"][:-1])
                lines.append(str(unknown_name("key", str(problem["loc"][-1]), allowed, f"{where}, at '{key}'")))
            else:
                found = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
                lines.append(f"{where}{f', key {key!r}' if key else ''}: {problem['msg']}{found}")
        raise UserError("\n".join(lines)) from None


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
