"""Extensions by name: a pruning method, task, inference engine, table or stage is one file with one class.

They come from three places:

- the files of this package: `obert/<kind>/<name>.py`;
- installed packages: entry points of the group `obert.<kind>`, whose value is a module, or `module:Class`;
- a folder that the experiment names: `<folder>/<kind>/<name>.py`. Its code is run as it is, like the experiment's own.

Files that start with an underscore are no extensions. Names are listed without importing anything. Two extensions of
one kind and name are an error, and so is one that cannot be imported, as soon as it is asked for.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from obert.foundation.errors import UserError, unknown_name

PACKAGE = Path(__file__).parents[1]
KINDS = {
    "pruning": "pruning method",
    "tasks": "task",
    "engines": "inference engine",
    "tables": "table",
    "stages": "stage",
}
CLASSES = {"pruning": "Method", "tasks": "Task", "engines": "Engine", "tables": "Table", "stages": "Stage"}
RECIPES = "recipes"  # the folder's recipes, see `obert.experiment.recipes`
NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_FOLDER_PACKAGE = "obert_extensions"  # the folder's modules are imported from below this name


@dataclass(frozen=True)
class _Extension:
    """Where an extension is.

    Attributes:
        place: the same for a reader.
        module: its dotted name.
        attribute: the class in it, if that is said.
        file: of the module; None where it takes a search to know.
    """

    place: str
    module: str
    attribute: str = ""
    file: Path | None = None


_folder: Path | None = None


def use_folder(path: Path | str | None, where: str = "") -> None:
    """Take extensions from a folder from now on, in the place of an earlier one. None: from no folder.

    Args:
        path: relative to the working directory, or absolute.
        where: file and key in which the path was found, for the message.

    Raises:
        UserError: there is no such folder, or it has none of the subfolders in which extensions are looked for.
    """
    global _folder
    chosen = None if path is None else Path(path).resolve()
    if chosen is not None and not any((chosen / room).is_dir() for room in (*KINDS, RECIPES)):
        problem = f"has none of the folders {', '.join((*KINDS, RECIPES))}" if chosen.is_dir() else "is no folder"
        raise UserError(f"extensions '{path}'{f' in {where}' if where else ''} {problem}")
    if chosen != _folder:
        _folder = chosen
        refresh()


def folder() -> Path | None:
    """The folder that `use_folder` was given, absolute."""
    return _folder


def refresh() -> None:
    """Look for extensions again: what was installed or written since the first look is found."""
    importlib.invalidate_caches()
    _installed.cache_clear()
    _found.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == _FOLDER_PACKAGE]:
        del sys.modules[name]


def names(kind: str) -> tuple[str, ...]:
    """Names of all extensions of a kind, sorted.

    Raises:
        UserError: two have one name, or a name is none.
    """
    return tuple(sorted(_found(kind)))


def require(kind: str, name: str, where: str = "") -> None:
    """Raise UserError, with the closest name, if there is no such extension. Imports nothing."""
    if name not in _found(kind):
        raise unknown_name(KINDS[kind], name, names(kind), where)


def source_file(kind: str, name: str) -> Path:
    """The file that defines an extension, found without importing it.

    Args:
        kind: any room of this package; one that has no extensions has its own files.

    Returns:
        The file. For a name that is no extension's, the file of this package that would define it.

    Raises:
        UserError: an entry point names a module that is not installed.
    """
    extension = _found(kind).get(name) if kind in KINDS else None
    if extension is None:
        return PACKAGE / kind / f"{name}.py"
    return extension.file or _module_file(extension)


def load(kind: str, name: str, where: str = "") -> type:
    """The class of an extension: the one that its entry point names, or its module's only subclass of the kind's base.

    Raises:
        UserError: there is no such extension, with the closest name; or its module defines no such class, or several.
        Exception: whatever the module raises at import, with a note that says which extension it is.
    """
    require(kind, name, where)
    extension = _found(kind)[name]
    base = getattr(importlib.import_module(f"obert.{kind}"), CLASSES[kind])
    try:
        return _class_of(extension, base)
    except UserError:
        raise
    except Exception as error:
        error.add_note(f"{KINDS[kind]} '{name}' is from {extension.place}")
        raise


def _class_of(extension: _Extension, base: type) -> type:
    if extension.module.partition(".")[0] == _FOLDER_PACKAGE:
        _import_folder()
    module = importlib.import_module(extension.module)
    if extension.attribute:
        found = getattr(module, extension.attribute, None)
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise UserError(
                f"{extension.module}:{extension.attribute} must be a subclass of {base.__name__}, as "
                f"{extension.place} says"
            )
        return found
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(
            f"{extension.place} must define exactly one subclass of {base.__name__}, found {len(classes)}; an entry "
            "point may name the class, as module:Class"
        )
    return classes[0]


@cache
def _found(kind: str) -> dict[str, _Extension]:
    """Every extension of a kind by name, from all three places."""
    room = f"obert.{kind}"
    found = {p.stem: _Extension(f"obert/{kind}/{p.name}", f"{room}.{p.stem}", "", p) for p in _files(PACKAGE, kind)}
    for name, extension in (*_installed().get(kind, ()), *_in_folder(kind)):
        if not NAME.fullmatch(name):
            raise UserError(
                f"{KINDS[kind]} '{name}' from {extension.place}: a name has lower-case letters, digits and underscores "
                "only. Rename it"
            )
        if name in found:
            raise UserError(
                f"{KINDS[kind]} '{name}' is there twice: {found[name].place} and {extension.place}. Rename one, or "
                "leave it out"
            )
        found[name] = extension
    return found


def _files(parent: Path, kind: str) -> list[Path]:
    return [path for path in sorted((parent / kind).glob("*.py")) if not path.stem.startswith("_")]


@cache
def _installed() -> dict[str, list[tuple[str, _Extension]]]:
    """By kind, the entry points of installed packages. All distributions are read, which takes milliseconds: once."""
    from importlib.metadata import entry_points

    found: dict[str, list[tuple[str, _Extension]]] = {}
    every = entry_points()
    for kind in KINDS:
        for point in every.select(group=f"obert.{kind}"):
            place = f"package {point.dist.name} {point.dist.version} (entry point {point.group}: {point.value})"
            found.setdefault(kind, []).append((point.name, _Extension(place, point.module, point.attr)))
    return found


def _in_folder(kind: str) -> list[tuple[str, _Extension]]:
    if _folder is None:
        return []
    return [(p.stem, _Extension(str(p), f"{_FOLDER_PACKAGE}.{kind}.{p.stem}", "", p)) for p in _files(_folder, kind)]


def _import_folder() -> None:
    """Make the folder a package, so that its modules can import one another as `from ._shared import ...`."""
    if _FOLDER_PACKAGE not in sys.modules:
        package = ModuleType(_FOLDER_PACKAGE, "The extensions of the experiment's folder.")
        package.__path__ = [str(_folder)]
        sys.modules[_FOLDER_PACKAGE] = package


def _module_file(extension: _Extension) -> Path:
    """Where the module of an entry point is. Only a search: not even its package is imported."""
    from importlib.util import find_spec

    top, *parts = extension.module.split(".")
    spec = find_spec(top)
    if spec is not None and spec.submodule_search_locations is not None:
        for place in spec.submodule_search_locations:
            base = Path(place, *parts)
            for file in (base / "__init__.py", *([base.with_suffix(".py")] if parts else [])):
                if file.is_file():
                    return file
    elif spec is not None and spec.origin is not None and not parts:
        return Path(spec.origin)
    raise UserError(f"there is no module '{extension.module}', as {extension.place} says. Install the package again")
