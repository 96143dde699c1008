"""A hash of the code that a result depends on: what the code says, not how it is written down.

Comments, docstrings, formatting and the version of Python do not count. A file is known by its syntax tree in a form of
our own, since `ast.dump` and `ast.unparse` change with the version. This module needs the standard library alone.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from obert.foundation.registry import PACKAGE, source_file

# Those follow from the rest of the tree, or are of no meaning when the code runs.
_SILENT_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}
_INSTALLED = {"site-packages", "dist-packages"}  # a module there has no folder of its own


@dataclass(frozen=True)
class _Source:
    """What a file says, and what it imports.

    Attributes:
        digest: sha256 of its code, None where it has none, such as a package's file with a docstring alone.
        imports: the files that it imports, of this package and of its own package or folder.
    """

    digest: str | None
    imports: frozenset[Path]


def code_hash(**names: str | Iterable[str] | None) -> str:
    """Hash of the code that something runs: the files named, and whatever they import.

    Extensions are found by name, not by import statement, so a stage depends only on those it is given.

    Args:
        names: files by room, e.g. `stages="downstream"`, `commands="check"`, `pruning="obert"`, `tables=["latency"]`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return hash_of_files(
        source_file(room, name)
        for room, chosen in names.items()
        for name in ([chosen] if isinstance(chosen, str) else chosen or ())
    )


def hash_of_files(roots: Iterable[Path]) -> str:
    """Hash of Python files, wherever they are, and whatever they import of `obert` and of their own package or folder.

    Where the package or folder lies does not count; the files' names within it do.

    Raises:
        FileNotFoundError: there is no such file.
        SyntaxError: one is no Python of this version.
    """
    return _hash_of(frozenset(path.resolve() for path in roots))


@cache
def _hash_of(roots: frozenset[Path]) -> str:
    found = sorted((path.relative_to(_home(path)).as_posix(), _parsed(path).digest) for path in _reached(roots))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def code_files(roots: Iterable[Path]) -> list[Path]:
    """The files that `roots` reach through import statements, themselves included, those without any code left out."""
    return sorted(_reached(path.resolve() for path in roots))


def _reached(roots: Iterable[Path]) -> set[Path]:
    pending, seen = list(roots), set()
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending.extend(_parsed(path).imports)
    return {path for path in seen if _parsed(path).digest is not None}


@cache
def _parsed(path: Path) -> _Source:
    tree = ast.parse(path.read_bytes(), str(path))
    code = canonical(tree)
    digest = hashlib.sha256(code.encode()).hexdigest() if code != canonical(ast.Module([], [])) else None
    return _Source(digest, frozenset(_imports(tree, path)))


def _packages(path: Path) -> list[Path]:
    """The packages that a file lies in, the innermost first."""
    folders = list(path.parents)
    return folders[: [(folder / "__init__.py").is_file() for folder in folders].index(False)]


def _home(path: Path) -> Path:
    """The folder that holds a file's top-level package, or the file itself if it is in none."""
    return [path.parent, *(package.parent for package in _packages(path))][-1]


def _imports(tree: ast.AST, path: Path) -> Iterator[Path]:
    """The files that a file imports, as far as they are followed, and those of the packages that it lies in.

    The file of a top-level package is one of them only if it is imported from by name: it holds the version.
    """
    home = _home(path)
    yield from (package / "__init__.py" for package in _packages(path)[:-1])
    for level, module, name in _import_statements(tree):
        top = module.partition(".")[0]
        if level:
            start = path.parents[level - 1]
        elif top == PACKAGE.name:
            start = PACKAGE.parent
        elif top == path.relative_to(home).parts[0] or (home == path.parent and home.name not in _INSTALLED):
            start = home
        else:
            continue
        target = start.joinpath(*module.split(".")) if module else start
        file = (name and _module_file(target / name)) or _module_file(target)
        if file:
            yield file


def _import_statements(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Leading dots, module and name of `import module` and `from module import name`; what is not there is empty.

    What `if TYPE_CHECKING:` keeps from running does not count.
    """
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _module_file(base: Path) -> Path | None:
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))  # Python looks for them in this order
    return next((file.resolve() for file in candidates if file.is_file()), None)


def canonical(tree: ast.AST) -> str:
    """A text that two syntax trees share if they are the same code, with whatever version of Python they were parsed.

    It names the fields that hold something, so those that a version adds are not there where they are not used.
    Adjoining parts of f-strings are joined, statements that do nothing are left out, docstrings among them.
    """
    parts: list[str] = []
    _write(tree, parts)
    return "".join(parts)


def _write(node: ast.AST, parts: list[str]) -> None:
    if isinstance(node, ast.JoinedStr):
        node = _joined(node)
    if isinstance(node, ast.Constant):
        parts.append(f"<{node.value!a}>")  # ASCII, as versions differ in which characters they can print
        return
    parts.append(f"{type(node).__name__}(")
    for field in sorted(node._fields):
        value = getattr(node, field, None)
        if isinstance(node, ast.Delete):  # `del (a, b)` is `del a, b`, and formatters make one of the other
            value = [name for target in value for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if isinstance(value, list):
            value = [item for item in value if not _does_nothing(item)]
        if value is None or value == [] or field in _SILENT_FIELDS:
            continue
        parts.append(f"{field}=")
        _write_value(value, parts)
        parts.append(";")
    parts.append(")")


def _write_value(value: object, parts: list[str]) -> None:
    if isinstance(value, list):
        parts.append("[")
        for item in value:
            _write_value(item, parts)
            parts.append(",")
        parts.append("]")
    elif isinstance(value, ast.AST):
        _write(value, parts)
    else:
        parts.append(ascii(value))


def _does_nothing(node: object) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _joined(node: ast.JoinedStr) -> ast.JoinedStr | ast.Constant:
    """An f-string whose adjoining constants are one, and that is a plain string if it has nothing else."""
    values: list[ast.expr] = []
    for value in node.values:
        if isinstance(value, ast.Constant) and values and isinstance(values[-1], ast.Constant):
            values[-1] = ast.Constant(values[-1].value + value.value)
        elif not (isinstance(value, ast.Constant) and not value.value):
            values.append(value)
    if all(isinstance(value, ast.Constant) for value in values):
        return values[0] if values else ast.Constant("")
    return ast.JoinedStr(values)
