"""The installation: pip's settings in uv's words, what is said before anything is fetched, versions that were tried."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "workflow" / "envs" / "install.py"


@pytest.fixture(scope="module")
def install():
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(install, monkeypatch, tmp_path):
    """Commands that are noted and not run; `packages` is what the resolver finds."""

    class Noted(list):
        label = "cpu"  # what pip's torch is built for
        packages = [{"name": "torch", "version": "1+cpu", "wheels": [{"url": "https://x/a.whl", "size": 5_000_000}]}]
        failing = ()

    noted = Noted()

    def call(*command, **options):
        line = " ".join(map(str, command))
        noted.append(line)
        if any(part in line for part in noted.failing):
            raise install.Failure("no such host")
        if "pip compile" in line:
            lines = []
            for package in noted.packages:
                wheels = ", ".join(f'{{url = "{w["url"]}", size = {w["size"]}}}' for w in package["wheels"])
                lines += ["[[packages]]", f'name = "{package["name"]}"', f'version = "{package["version"]}"']
                lines.append(f"wheels = [{wheels}]")
            (tmp_path / "venv" / "pylock.toml").write_text("\n".join(lines))
        if install.LABEL in line:
            return f"{noted.label}\n"
        return "global.index-url='https://own/simple'\n" if "config list" in line else ""

    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(install, "_call", call)
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    return noted


def run(install, monkeypatch, tmp_path, *arguments):
    monkeypatch.setattr(sys, "argv", ["install.py", str(tmp_path / "venv"), *arguments])
    install.main()


LISTED = """\
:env:.cert='/a/cert.pem'
:env:.find-links='/wheels'
global.find-links='/others'
global.extra-index-url='https://one/simple\\nhttps://two/simple'
global.constraint='/c.txt'
global.no-index='false'
install.index-url='https://own/simple'
freeze.index-url='https://never/simple'
"""


def test_settings_of_pip_in_the_words_of_uv(install, monkeypatch):
    settings = install.pip_settings(LISTED)
    assert settings["find-links"] == "/wheels"  # a variable counts before a file
    options = install.uv_options(settings)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert ("--default-index", "https://own/simple") in pairs
    assert [value for name, value in pairs if name == "--index"] == ["https://one/simple", "https://two/simple"]
    assert ("--find-links", "/wheels") in pairs
    assert "--no-index" in install.uv_options({"no-index": "1"})
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert install.uv_variables(settings)["SSL_CERT_FILE"] == "/a/cert.pem"
    monkeypatch.setenv("SSL_CERT_FILE", "/b/cert.pem")
    assert install.uv_variables(settings)["SSL_CERT_FILE"] == "/b/cert.pem"


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [("auto", False, "cpu"), ("auto", True, "index"), ("cuda", False, "cuda"), ("index", False, "index")],
)
def test_wheels_that_are_chosen(install, asked, gpu, expected):
    assert install.choose_torch(asked, gpu) == expected


def test_what_is_fetched_is_said(install, tmp_path):
    (tmp_path / "b c.whl").write_bytes(bytes(2_000_000))
    packages = [
        {"name": "a", "wheels": [{"url": "https://x/a.whl", "size": 3_000_000}, {"url": "https://x/b.whl", "size": 1}]},
        {"name": "b", "wheels": [{"url": (tmp_path / "b c.whl").as_uri()}]},
        {"name": "c", "sdist": {"url": "https://x/c.tar.gz"}},
    ]
    said = install.summary(packages)
    for part in ("3 packages", "3 MB from the package index", "2 MB from this machine's disk", "1 of a size"):
        assert part in said


def test_pytorch_s_own_index_is_asked_for_cpu_wheels_and_versions_are_pinned(
    install, environment, monkeypatch, tmp_path, capsys
):
    run(install, monkeypatch, tmp_path)
    resolved = next(line for line in environment if "pip compile" in line)
    assert "--torch-backend cpu" in resolved
    assert f"-c {ROOT / 'constraints.txt'}" in resolved
    assert "--default-index https://own/simple" in resolved
    installed = next(line for line in environment if "pylock.toml" in line and "pip install" in line)
    assert "--compile-bytecode" in installed  # as pip does
    said = capsys.readouterr().out
    assert said.index("no NVIDIA GPU was found") < said.index("1 packages, 5 MB") < said.index("installed:")
    assert (tmp_path / "venv" / "installed").read_text() == "cpu\n"


def test_where_pytorch_s_index_is_out_of_reach_the_package_index_decides(
    install, environment, monkeypatch, tmp_path, capsys
):
    environment.failing = ("--torch-backend",)
    environment.packages = [
        {"name": name, "version": "1", "wheels": [{"url": f"https://x/{name}.whl", "size": 10**9}]}
        for name in ("torch", "nvidia-cublas")
    ]
    run(install, monkeypatch, tmp_path)
    assert "2,000 MB" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="TORCH=cpu cannot be had"):
        run(install, monkeypatch, tmp_path, "--torch", "cpu")


@pytest.mark.parametrize(("asked", "stops"), [("cu126", True), ("cu999", True), ("cuda", False), ("cu130", False)])
def test_a_version_of_cuda_is_not_replaced_by_that_of_the_package_index(
    install, environment, monkeypatch, tmp_path, asked, stops
):
    """That of PyPI is built for CUDA 13.0."""
    environment.failing = ("--torch-backend",)
    environment.packages = [
        {"name": name, "version": "1", "wheels": [{"url": f"https://x/{name}.whl", "size": 10**9}]}
        for name in ("torch", "nvidia-cublas")
    ]
    installed = tmp_path / "venv" / "installed"
    if not stops:
        run(install, monkeypatch, tmp_path, "--torch", asked)
        assert installed.read_text() == f"{asked}\n"
        return
    with pytest.raises(SystemExit, match=rf"TORCH={asked} cannot be had: .*\(no such host\).*TORCH=index takes"):
        run(install, monkeypatch, tmp_path, "--torch", asked)
    assert not installed.exists()


def test_pip_stops_where_it_finds_other_wheels_than_those_asked_for(install, environment, monkeypatch, tmp_path):
    """Where PyTorch's index is out of reach, pip takes what the package index has, and says nothing."""
    environment.label = "cu130"
    pip = ("--installer", "pip")
    for asked in ("cpu", "cu126"):
        with pytest.raises(SystemExit, match=f"TORCH={asked} cannot be had: pip found torch for cu130, not {asked}"):
            run(install, monkeypatch, tmp_path, *pip, "--torch", asked)
        assert not any("-e .[dev]" in line for line in environment), "nothing more is fetched"
    for asked in ("auto", "cuda", "index"):
        run(install, monkeypatch, tmp_path, *pip, "--torch", asked)
        assert environment[-1].endswith("-e .[dev]")


def test_the_label_is_that_of_torch(install):
    """Which is imported here alone."""
    done = subprocess.run([sys.executable, "-c", install.LABEL], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (torch.__version__.partition("+")[2] or "cpu")


def test_what_is_interrupted_is_not_called_installed(install, environment, monkeypatch, tmp_path):
    """Other wheels over those that are there, and Ctrl-C in the download."""
    run(install, monkeypatch, tmp_path, "--torch", "cpu")
    installed = tmp_path / "venv" / "installed"
    assert installed.exists()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "_with_uv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(install, monkeypatch, tmp_path, "--torch", "cuda")
    assert not installed.exists()


def test_pip_is_taken_where_uv_cannot_be_had(install, environment, monkeypatch, tmp_path, capsys):
    environment.failing = (" uv",)
    run(install, monkeypatch, tmp_path)
    assert "--extra-index-url https://download.pytorch.org/whl/cpu torch" in environment[-2]
    assert environment[-1].endswith("-e .[dev]")
    assert "uv cannot be used, pip is" in capsys.readouterr().out


def test_every_dependency_was_tried_at_a_version_that_its_range_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    required = [Requirement(line) for line in (*project["dependencies"], *optional)]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    tried = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, lines)}
    for requirement in required:
        if requirement.name != "obert":
            assert tried[canonicalize_name(requirement.name)] in requirement.specifier, requirement
            assert any(part.operator == "<" for part in requirement.specifier), f"{requirement} has no upper bound"
