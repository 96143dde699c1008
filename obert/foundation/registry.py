"""Extensions found by file name: one file in `pruning/`, `tasks/`, `engines/` or `tables/` is one extension."""

import importlib
import inspect
from pathlib import Path

from obert.foundation.errors import unknown_name

PACKAGE = Path(__file__).parents[1]
KINDS = {
    "pruning": "pruning method",
    "tasks": "task",
    "engines": "inference engine",
    "tables": "table",
    "stages": "stage",
}

CLASSES = {"pruning": "Method", "tasks": "Task", "engines": "Engine", "tables": "Table", "stages": "Stage"}


def names(kind: str) -> tuple[str, ...]:
    """File names of all extensions of a kind, sorted. Files that start with an underscore are shared rooms."""
    return tuple(sorted(p.stem for p in (PACKAGE / kind).glob("*.py") if not p.stem.startswith("_")))


def source_file(kind: str, name: str) -> Path:
    """The file that defines an extension."""
    return PACKAGE / kind / f"{name}.py"


def require(kind: str, name: str, where: str = "") -> None:
    """Raise UserError, with the closest name, if no file defines `name`. Imports nothing."""
    if name not in names(kind):
        raise unknown_name(KINDS[kind], name, names(kind), where)


def load(kind: str, name: str, where: str = "") -> type:
    """The class that `obert/<kind>/<name>.py` defines: its only subclass of the kind's base class.

    Raises:
        UserError: no such file; the closest name is suggested.
        TypeError: the file defines no such class, or several.
        Exception: whatever the file raises at import; a broken extension is never skipped silently.
    """
    require(kind, name, where)
    base = getattr(importlib.import_module(f"obert.{kind}"), CLASSES[kind])
    module = importlib.import_module(f"obert.{kind}.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(
            f"obert/{kind}/{name}.py must define exactly one subclass of {base.__name__}, found {len(found)}"
        )
    return found[0]
