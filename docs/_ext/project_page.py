"""Facts of the project as Markdown: its rooms, its extensions, and the versions it was tried with."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "obert"


def rooms() -> Iterator[str]:
    """One row a folder of the package: its name and the first sentence of its docstring."""
    yield from ("| room | what is in it |", "|---|---|")
    for file in sorted(PACKAGE.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        yield f"| `obert/{file.parent.name}/` | {' '.join(text.partition(chr(10) * 2)[0].split())} |"


def versions() -> Iterator[str]:
    """One row a dependency of `pyproject.toml`: the range that is allowed and the version that was tried."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    tried = {_plain(name): version for name, version in pinned.items()}
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    yield from ("| package | installed with | allowed | tried until |", "|---|---|---|---|")
    for extra, requirements in groups.items():
        for requirement in requirements:
            name, allowed = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)", requirement).groups()
            if name != project["name"]:
                known = tried.get(_plain(name), "not pinned")
                yield f"| {name} | {extra or 'always'} | `{allowed or 'any'}` | {known} |"


def _plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
