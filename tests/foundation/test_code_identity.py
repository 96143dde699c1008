"""The code hash: what the code says counts, and so does what it imports; how it is written down does not."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from obert.foundation import code_identity
from obert.foundation.code_identity import code_files, code_hash, hash_of_files
from obert.foundation.registry import PACKAGE

SAMPLE = Path(__file__).with_name("code_with_everything.py")
CODE = SAMPLE.read_text()
# Of the sample, with every version of Python: whichever runs this test must find it.
HASH = "82c8bd638d8ce924"
VERSIONS = ("3.11", "3.12", "3.13")


@pytest.fixture
def hash_of(tmp_path):
    """Hash of a file of that text."""

    def hash_of(text):
        file = tmp_path / "module.py"
        file.write_text(text)
        _forget()
        return hash_of_files([file])

    return hash_of


def _forget():
    code_identity._parsed.cache_clear()
    code_identity._hash_of.cache_clear()


def _interpreters():
    """A Python of each version that there is on this machine, pyenv's included."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
        for candidate in filter(None, candidates):
            question = [candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
            if subprocess.run(question, capture_output=True, text=True).stdout.strip() == version:
                yield version, candidate
                break


def test_every_python_finds_the_same_hash(hash_of):
    assert hash_of(CODE) == HASH


def test_the_pythons_of_this_machine_agree_on_every_file_of_the_package():
    program = (
        "import sys; from pathlib import Path; from obert.foundation.code_identity import hash_of_files\n"
        "for line in sys.stdin: print(line.strip(), hash_of_files([Path(line.strip())]))"
    )
    files = [SAMPLE, *sorted(PACKAGE.rglob("*.py"))]
    said = {}
    for version, python in _interpreters():
        command = [python, "-S", "-c", program]  # without installed packages
        environment = {"PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run(
            command, input="\n".join(map(str, files)), env=environment, capture_output=True, text=True, check=True
        )
        said[version] = done.stdout.splitlines()
    if len(said) < 2:
        pytest.skip(f"there is one Python alone: {', '.join(said)}")
    first, *others = said.values()
    assert len(first) == len(files) > 100
    assert all(lines == first for lines in others)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What the module is for."""', ""),
        ('"""What the class is for."""', '"""Anything else."""'),
        ('    """Documents a field."""\n', ""),
        ("# a remark", "# another"),
        ("(first, second=2, /, *rest,", "(\n    first,\n    second = 2,\n    /,\n    *rest,"),
        ("first * 2 + 1", "((first * 2) + (1))"),
        ("'single'", '"single"'),
        ('"joined " "string"', '"joined string"'),
        ('f"a{first}" \'b\' f"{second!r:>{width}}"', 'f"a{first}b{second!r:>{width}}"'),
        ('f"without a field"', '"without a field"'),
        ("0xFF", "255"),
        ("del (first, second)", "del first, second"),
        ("        pass\n", "        ...\n"),
        ("\n\n", "\n\n\n"),
    ],
)
def test_how_it_is_written_down_does_not_count(hash_of, old, new):
    assert old in CODE
    assert hash_of(CODE.replace(old, new)) == hash_of(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("first * 2 + 1", "first * 2 + 3"),
        ("first * 2 + 1", "first * (2 + 1)"),
        ("first * 2 + 1", "first * 2 - 1"),
        ("first * 2 + 1", "first * 2.0 + 1"),
        ("'single'", "'Single'"),
        ("'single'", "b'single'"),
        ("'single'", "single"),
        ("second!r:>{width}", "second!s:>{width}"),
        ("second!r:>{width}", "second!r:<{width}"),
        ("'b' f", "'c' f"),
        ("def compute", "def computes"),
        ("second=2, /,", "second=2,"),
        ("**options: int", "**options: float"),
        ("case None:", "case True:"),
        ("if flag:\n        pass\n    else:", "if flag:"),
        ("{**options, 'single': None}", "{**options, 'single': 0}"),
        ("except* ValueError", "except ValueError"),
        ("async def wait", "def wait"),
        ("from __future__ import annotations", ""),
    ],
)
def test_what_it_says_counts(hash_of, old, new):
    assert old in CODE
    assert hash_of(CODE.replace(old, new)) != hash_of(CODE)


def test_another_formatting_of_the_package_changes_no_file(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "obert")
    options = ["line-length=40", "format.quote-style='single'", "format.indent-style='tab'"]
    options += ["format.skip-magic-trailing-comma=true", "format.docstring-code-format=true"]
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--quiet", str(tmp_path / "obert")]
    subprocess.run([*command, *(part for option in options for part in ("--config", option))], check=True)
    changed = 0
    for path in PACKAGE.rglob("*.py"):
        other = tmp_path / "obert" / path.relative_to(PACKAGE)
        changed += other.read_bytes() != path.read_bytes()
        assert code_identity._parsed(path).digest == code_identity._parsed(other).digest, path
    assert changed > 100


def test_every_constant_of_the_solvers_counts(hash_of):
    text = (PACKAGE / "second_order/solvers.py").read_text()
    numbers = list(
        re.finditer(r"(?<![\w.\"'])\d+(?![\w.\"'])", re.sub(r'""".*?"""|#[^\n]*', _blank, text, flags=re.DOTALL))
    )
    hashes = {hash_of(f"{text[: n.start()]}{int(n[0]) + 7}{text[n.end() :]}") for n in numbers}
    assert len(hashes) == len(numbers) > 5 and hash_of(text) not in hashes


def _blank(found):
    return re.sub(r".", " ", found[0])


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    _forget()


INSTALLED = {
    "site-packages/mine/__init__.py": "__version__ = '1'\n",
    "site-packages/mine/methods/__init__.py": "SHARED = 1\n",
    "site-packages/mine/methods/fancy.py": (
        "import torch\nimport other\nfrom obert.masks import counts\nfrom ..helpers import scores\n"
        "from mine.deep import *\nfrom . import near\n"
    ),
    "site-packages/mine/methods/near.py": "if TYPE_CHECKING:\n    import mine.types\n",
    "site-packages/mine/helpers/__init__.py": '"""Nothing."""\n',
    "site-packages/mine/helpers/scores.py": "x = 1\n",
    "site-packages/mine/deep.py": "x = 1\n",
    "site-packages/mine/types.py": "x = 1\n",
    "site-packages/other.py": "x = 1\n",
    "site-packages/torch/__init__.py": "x = 1\n",
}


def test_an_installed_extension_is_followed_within_its_own_package_and_this_one(tmp_path):
    _write(tmp_path, INSTALLED)
    site = tmp_path / "site-packages"
    found = code_files([site / "mine/methods/fancy.py"])
    own = {path.relative_to(site).as_posix() for path in found if path.is_relative_to(site)}
    names = ("methods/__init__", "methods/fancy", "methods/near", "helpers/scores", "deep")
    assert own == {f"mine/{name}.py" for name in names}
    assert PACKAGE / "masks/counts.py" in found


def test_an_extension_in_a_folder_is_followed_within_it(tmp_path):
    folder = tmp_path / "my_methods"
    _write(
        folder,
        {"fancy.py": "import numpy\nimport near\nimport sub.far\n", "near.py": "x = 1\n", "sub/far.py": "x = 1\n"},
    )
    found = code_files([folder / "fancy.py"])
    assert {path.relative_to(folder).as_posix() for path in found} == {"fancy.py", "near.py", "sub/far.py"}


def test_where_an_extension_lies_does_not_count_but_what_it_imports_does(tmp_path):
    for place in ("here", "there"):
        _write(tmp_path / place, INSTALLED)
    fancy = "site-packages/mine/methods/fancy.py"
    assert hash_of_files([tmp_path / "here" / fancy]) == (before := hash_of_files([tmp_path / "there" / fancy]))
    _write(tmp_path / "there", {"site-packages/mine/__init__.py": "__version__ = '2'\n"})
    assert hash_of_files([tmp_path / "there" / fancy]) == before
    _write(tmp_path / "there", {"site-packages/mine/deep.py": "x = 2\n"})
    assert hash_of_files([tmp_path / "there" / fancy]) != before


def names(**names_by_room):
    roots = [PACKAGE / room / f"{name}.py" for room, name in names_by_room.items()]
    return {path.relative_to(PACKAGE).as_posix() for path in code_files(roots)}


def test_pruning_depends_on_its_method_and_what_that_imports():
    with_obert = names(stages="downstream", pruning="obert", tasks="movie_reviews")
    with_magnitude = names(stages="downstream", pruning="magnitude", tasks="movie_reviews")
    own = {"pruning/obert.py", "pruning/shared/block_fisher.py", "pruning/shared/gradient_based.py"}
    own |= {"pruning/shared/fisher_sharing.py", "pruning/shared/process_shares.py"}
    own |= {f"second_order/{name}.py" for name in ("compiled", "fisher", "gradients", "solvers")}
    assert own == with_obert - with_magnitude - {"pruning/magnitude.py"}
    shared = {"training/trainer.py", "masks/selection.py", "tasks/_classification.py"}
    assert shared | {"pruning/__init__.py"} <= with_magnitude
    others = ("tables/", "engines/", "tracking/", "commands/", "experiment/plan.py", "experiment/definitions.py")
    assert not any(name.startswith(others) for name in with_obert)  # to edit the planner reruns nothing
    assert "__init__.py" not in with_obert  # it holds the version


def test_a_docstring_far_below_a_teacher_does_not_change_it_but_code_does(tmp_path, monkeypatch):
    shutil.copytree(PACKAGE, tmp_path / "obert")
    monkeypatch.setattr(code_identity, "PACKAGE", tmp_path / "obert")
    teacher, files = tmp_path / "obert/stages/teacher.py", tmp_path / "obert/foundation/files.py"
    text, hashes = files.read_text(), []
    for written in (text, text.replace("Write a file atomically.", "Write."), text.replace('"sha256"', '"sha1"')):
        files.write_text(written)
        _forget()
        hashes.append(hash_of_files([teacher]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_tables_do_not_depend_on_training():
    found = names(commands="tables", tables="leaderboard")
    assert not found & {"training/trainer.py", "training/gradual.py", "second_order/fisher.py", "models/encoders.py"}


def test_extensions_are_part_of_the_hash():
    assert code_hash(stages="downstream", pruning="obert") != code_hash(stages="downstream", pruning="magnitude")
    assert code_hash(tables=["leaderboard", "latency"]) != code_hash(tables=["leaderboard"])


def test_a_name_without_a_file_has_no_hash():
    with pytest.raises(FileNotFoundError):
        code_hash(stages="downstraem")
    with pytest.raises(FileNotFoundError):
        code_hash(commands="chek")
