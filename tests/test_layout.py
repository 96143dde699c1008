"""The rooms: what each may import, how many there are, and that each says what it is for."""

import ast
import re
import sys
from pathlib import Path

import pytest

from obert.foundation.registry import PACKAGE

FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({path.parent for path in FILES} - {PACKAGE})
# They work on tensors and graphs alone; what is not named here is the harness, and what one imports the others may.
NUMERICAL = ("masks", "second_order", "pruning", "quantization")
MAX_LINES, MAX_ENTRIES = 400, 27  # of a module, and of `ls obert`: half a screen
WITHOUT_PURPOSE = ("utils", "util", "helpers", "common", "misc")


def imports(tree: ast.AST, package: str = "") -> set[str]:
    """The modules that a tree names in import statements, wherever they stand; `package` is the one that it lies in."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def offences(room: str, is_forbidden) -> list[str]:
    """Import statements of a room (of the whole package if it is empty) that are forbidden, with their files."""
    found = []
    for path in FILES:
        package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        if room in ("", room_of(path)):
            named = imports(ast.parse(path.read_text(encoding="utf-8")), package)
            found += [
                f"{path.relative_to(PACKAGE)}: {module}" for module in sorted(named) if is_forbidden(path, module)
            ]
    return found


def is_outside(module: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of this package's, in none of these rooms."""
    first, _, rest = module.partition(".")
    return first == PACKAGE.name and rest.partition(".")[0] not in rooms


def test_imports_are_found_wherever_they_stand_and_however_they_are_written():
    text = "import a.b\ndef f():\n    from obert.x import y\n    from .near import z\n    from .. import far\n"
    found = imports(ast.parse(text), "obert.room")
    assert found == {"a.b", "obert.x.y", "obert.room.near.z", "obert.far"}
    assert [is_outside(name, ("x",)) for name in sorted(found)] == [False, True, True, False]


@pytest.mark.parametrize("room", NUMERICAL)
def test_the_numerical_rooms_import_nothing_of_the_harness(room):
    allowed = (*NUMERICAL, "foundation")
    assert not offences(room, lambda _, module: is_outside(module, allowed))


def test_the_foundation_imports_no_other_room():
    assert not offences("foundation", lambda _, module: is_outside(module, ("foundation",)))


def test_the_sparse_engine_needs_numpy_and_numba_alone():
    """But for what adds a run's tokenizer and task, which is imported when it is asked for."""
    own = ("numpy", "numba", "llvmlite", "obert.sparse", "obert.foundation.errors", *sys.stdlib_module_names)

    def is_foreign(path, module):
        return path.stem not in ("pipeline", "predictions") and not any(f"{module}.".startswith(f"{o}.") for o in own)

    assert not offences("sparse", is_foreign)


def test_only_tracking_imports_mlflow():
    assert not offences("", lambda path, module: module.split(".")[0] == "mlflow" and room_of(path) != "tracking")


def test_stages_do_not_import_tables():
    assert not offences("stages", lambda _, module: module.startswith(("obert.tables", "obert.report")))


def test_nothing_imports_snakemake():
    assert not offences("", lambda _, module: module.split(".")[0] == "snakemake")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_says_what_it_is_for(room):
    purpose = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert purpose and len(purpose.split()) >= 4


def test_the_rooms_fit_on_half_a_screen():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MAX_ENTRIES


def test_a_module_has_one_purpose():
    long = {path.name: count for path in FILES if (count := len(path.read_text().splitlines())) > MAX_LINES}
    assert not long
    assert not [
        path for path in FILES if path.stem.strip("_") in WITHOUT_PURPOSE or path.parent.name in WITHOUT_PURPOSE
    ]


def test_tests_that_scripts_name_are_there():
    root = PACKAGE.parent
    for script in (root / ".ci" / "run", root / ".ci" / "newest", root / "tests" / "gpu" / "run.sh"):
        for name in re.findall(r"\btests/[\w/]+(?:\.\w+)?", script.read_text(encoding="utf-8")):
            assert (root / name).exists(), f"{script.name} names {name}"


def test_no_two_test_modules_have_one_name():
    """pytest imports those that lie in no package by their names alone."""
    files = [path for path in Path(__file__).parent.rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert sorted(path.name for path in files) == sorted({path.name for path in files})
