"""What a record says of where it was made."""

import importlib.metadata
import os
import subprocess

import psutil
import pytest

from obert.records import provenance
from obert.records.provenance import environment, git_state

X86 = "processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_vnni sse4_2\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve crc32\n"
KEYS = {"git_commit", "git_dirty", "python", "platform", "packages", "cpu", "isa_flags", "cores", "memory_gb", "gpu"}


def test_environment_names_versions_and_hardware():
    found = environment()
    assert found.keys() == KEYS
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["cores"] == os.cpu_count()
    assert found["memory_gb"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.1)
    assert found["cpu"]


@pytest.mark.parametrize(
    ("content", "cpu", "flags"),
    [(X86, "Example CPU @ 2 GHz", ["avx2", "avx512_vnni"]), (ARM, "Neoverse-V2", ["asimd", "sve"])],
)
def test_the_processor_is_read_from_what_the_system_says(tmp_path, monkeypatch, content, cpu, flags):
    (tmp_path / "cpuinfo").write_text(content)
    said = {"lscpu": "Architecture:   aarch64\nModel name:             Neoverse-V2\n"}
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(provenance, "_said", lambda *command: said.get(command[0]))
    found = environment()
    assert (found["cpu"], found["isa_flags"]) == (cpu, flags)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a package in it that takes the place of this one."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "First")
    return package


def _git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_and_whether_files_differ_from_it(repository):
    commit = _git(repository, "rev-parse", "HEAD")
    assert git_state() == {"git_commit": commit, "git_dirty": False}
    (repository.parent / "results").mkdir()
    (repository.parent / "results" / "record.json").touch()  # nothing that a run is made with
    assert git_state() == {"git_commit": commit, "git_dirty": False}
    (repository / "new.py").touch()
    assert git_state() == {"git_commit": commit, "git_dirty": True}
    (repository / "new.py").unlink()
    (repository / "__init__.py").write_text("x = 1\n")
    assert git_state() == {"git_commit": commit, "git_dirty": True}


def test_a_repository_that_only_surrounds_the_package_is_not_its_own(repository, monkeypatch):
    installed = repository.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", installed)
    assert git_state() == {"git_commit": None, "git_dirty": None}


def test_without_git_there_is_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"git_commit": None, "git_dirty": None}
