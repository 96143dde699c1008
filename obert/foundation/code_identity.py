"""A hash of the code that a result depends on."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from obert.foundation.registry import PACKAGE, source_file


@cache
def _parsed(path: Path) -> tuple[str, frozenset[Path]]:
    """A file's syntax tree (so comments and formatting do not count), and the files of this package it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return ast.dump(tree), frozenset(filter(None, map(_module_file, imported)))


def _module_file(module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_files(roots: Iterable[Path]) -> list[Path]:
    """The files of this package that `roots` reach through import statements, themselves included."""
    pending, reached = list(roots), set()
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending.extend(_parsed(path)[1])
    return sorted(reached)


def code_hash(stage: str, **extensions: str | Iterable[str] | None) -> str:
    """Hash of the code that a stage runs: its file, the extensions named, and whatever they import.

    Extensions are found by name, not by import statement, so a stage depends only on those it is given.

    Args:
        stage: a file of `obert/stages/`.
        extensions: names by kind, e.g. `pruning="obert"`, `tables=["leaderboard"]`.
    """
    roots = [PACKAGE / room / f"{stage}.py" for room in ("stages", "commands", "sweeps")]
    roots = [path for path in roots if path.is_file()]
    for kind, chosen in extensions.items():
        chosen = [chosen] if isinstance(chosen, str) else chosen or []
        roots.extend(source_file(kind, name) for name in chosen)
    digest = hashlib.sha256()
    for path in code_files(roots):
        digest.update(f"{path.relative_to(PACKAGE)}\0{_parsed(path)[0]}\0".encode())
    return digest.hexdigest()[:16]
