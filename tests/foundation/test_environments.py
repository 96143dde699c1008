"""Virtual environments: made whole or not at all, once, and with a reason where they cannot be. The package index is a
folder, so Python's venv and pip themselves run here."""

import json
import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from obert.commands import environment as stage
from obert.foundation import environments
from obert.foundation.environments import FOLDER, MARKER, REQUIREMENTS, Environment
from obert.foundation.registry import load

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
TINY = Environment("tiny_library", pythons=(HERE,), system=sys.platform, machine=platform.machine())


@pytest.fixture
def index(package_index, tmp_path, monkeypatch):
    """The package index, from a working folder with the pins of one library."""
    monkeypatch.chdir(tmp_path)
    write_pins()
    return package_index


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A virtual environment with pip alone, made as every other one is; pip takes seconds to come into it."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    environments._run([sys.executable, "-I", "-m", "venv", str(folder)])
    return folder


@pytest.fixture
def copied(bare, monkeypatch):
    """Environments begin as copies of the bare one; every other command runs."""
    run = environments._run

    def copy_or_run(command, variables=None):
        if command[1:4] == ["-I", "-m", "venv"]:
            shutil.copytree(bare, command[4], symlinks=True, dirs_exist_ok=True)
        else:
            run(command, variables)

    monkeypatch.setattr(environments, "_run", copy_or_run)


def write_pins(text="tiny-library==1.0\n"):
    REQUIREMENTS.mkdir(parents=True, exist_ok=True)
    (REQUIREMENTS / "tiny_library.txt").write_text(text)


def write_wheel(index, code=""):
    with zipfile.ZipFile(index / "tiny_library-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_library/__init__.py", code)
        metadata = "Metadata-Version: 2.1\nName: tiny-library\nVersion: 1.0\nRequires-Dist: not-pinned\n"
        archive.writestr("tiny_library-1.0.dist-info/METADATA", metadata)
        archive.writestr("tiny_library-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("tiny_library-1.0.dist-info/RECORD", "")


@pytest.fixture
def commands(monkeypatch):
    """Commands are noted instead of run; the first of them makes the folder."""
    seen = []

    def note(command, variables=None):
        seen.append(command)
        if "venv" in command:
            interpreter = Path(command[-1]) / "bin" / "python"
            interpreter.parent.mkdir(parents=True)
            interpreter.touch()

    monkeypatch.setattr(environments, "_run", note)
    return seen


def left_over():
    return sorted(path.name for path in FOLDER.iterdir())


def test_an_environment_with_what_is_pinned(index, copied):
    write_wheel(index)
    (FOLDER / ".tiny_library.partial" / "killed").mkdir(parents=True)
    assert TINY.make() is None
    code = "import tiny_library, sys; print(sys.prefix)"
    done = subprocess.run([TINY.interpreter, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(FOLDER.absolute() / "tiny_library")
    assert left_over() == [".tiny_library.lock", "tiny_library", "tiny_library.json"]
    assert TINY.missing("tiny_library") is None
    assert TINY.missing("another") == "the package is not among those of workflow/envs/tiny_library.txt"
    assert json.loads(TINY.report.read_text())["reason"] is None


def test_a_package_index_without_the_library_is_a_reason(index, copied):
    reason = TINY.make()
    assert "No matching distribution found for tiny-library==1.0" in reason
    assert "\n" not in reason
    assert left_over() == [".tiny_library.lock", "tiny_library.json"]
    assert json.loads(TINY.report.read_text())["reason"] == reason
    missing = TINY.missing("tiny_library")
    assert reason in missing
    assert missing.endswith("`python -m obert environment --engine tiny_library` tries again")


def test_a_library_that_cannot_be_imported_is_a_reason(index, copied):
    write_wheel(index, "raise ImportError('this processor has no AVX2')")
    assert "ImportError: this processor has no AVX2" in TINY.make()
    assert left_over() == [".tiny_library.lock", "tiny_library.json"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"system": "plan9"}, f"has wheels for plan9 on {platform.machine()} alone, this is {sys.platform} on "),
        ({"machine": "vax"}, f"has wheels for {sys.platform} on vax alone"),
        ({"pythons": ("2.6", "2.5")}, f"has wheels for Python 2.6, 2.5; this is {platform.python_version()}, and none"),
    ],
)
def test_no_wheel_for_this_machine_is_a_reason(index, commands, changes, expected):
    chosen = Environment(**{**vars(TINY), **changes})
    assert expected in chosen.make()
    assert expected in chosen.missing("tiny_library")
    assert commands == []


def test_a_python_on_path_is_taken_where_the_running_one_has_no_wheels(index, commands, monkeypatch, tmp_path):
    """The first is a launcher that finds no such version."""
    for version, code in (("2.6", "exit 127"), ("2.5", "echo 2.5")):
        path = tmp_path / f"python{version}"
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    Environment(**{**vars(TINY), "pythons": ("2.6", "2.5")}).make()
    assert commands[0][0] == "python2.5"


def test_it_is_made_once(index, commands):
    threads = [threading.Thread(target=TINY.make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("venv" in command for command in commands) == 1
    assert TINY.make() is None
    assert sum("venv" in command for command in commands) == 1


def test_other_pins_make_it_anew(index, commands):
    assert "it has not been made from workflow/envs/tiny_library.txt" in TINY.missing("tiny_library")
    TINY.make()
    report = TINY.report.read_text()
    assert "not among those" in TINY.missing("tiny_library")
    write_pins("tiny-library==1.1\n")
    assert "it has not been made from workflow/envs/tiny_library.txt" in TINY.missing("tiny_library")
    TINY.make()
    assert sum("venv" in command for command in commands) == 2
    assert TINY.report.read_text() != report


def test_a_damaged_marker_makes_it_anew(index, commands):
    TINY.make()
    (FOLDER / "tiny_library" / MARKER).write_text("{")
    TINY.make()
    assert sum("venv" in command for command in commands) == 2


def test_the_stage_says_what_it_did_and_never_fails(index, monkeypatch, capsys):
    monkeypatch.setattr(load("engines", "onnxruntime"), "environment", Environment(**{**vars(TINY), "machine": "vax"}))
    stage.run("onnxruntime")
    assert "the benchmark will skip it: tiny_library has wheels for" in capsys.readouterr().out
    stage.run("pytorch")
    assert capsys.readouterr().out == "pytorch: needs no environment of its own\n"
