"""Install this project, editable and with what its development needs, into a virtual environment.

    python3.11 workflow/envs/install.py --torch auto .venv

`make install` runs it, with the Python that the environment is to have. It says what is fetched before it fetches it.
The resolver is uv, installed from the index that pip is set up for and with pip's settings, or else pip itself.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
# Of PyTorch's own index; CUDA 13.0 is what its wheel on PyPI is built for.
BACKENDS = {"cpu": "cpu", "cuda": "cu130"}
LABEL = (  # prints what torch is built for; importing it would take packages that are not there yet
    "import importlib.util, runpy; [folder] = importlib.util.find_spec('torch').submodule_search_locations; "
    "print(runpy.run_path(folder + '/version.py')['__version__'].partition('+')[2] or 'cpu')"
)
PYTORCH_INDEX = "https://download.pytorch.org/whl"
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}


class Failure(Exception):
    """A command failed; holds what it said."""


def pip_settings(listed: str) -> dict[str, str]:
    """pip's settings for `pip install`, from what `pip config list` prints: variables over `install` over `global`."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        place, _, value = line.partition("=")
        section, _, name = place.rpartition(".")
        if section in found:
            found[section][name] = ast.literal_eval(value)
    return found["global"] | found["install"] | found[":env:"]


def uv_options(settings: Mapping[str, str]) -> list[str]:
    """uv's options that say the same as pip's settings. pip takes the best version that any index has."""
    options = ["--index-strategy", "unsafe-best-match"]
    for name, option in UV_OPTIONS.items():
        for value in settings.get(name, "").split():
            options += [option, value]
    if settings.get("no-index", "0").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    return options


def uv_variables(settings: Mapping[str, str]) -> dict[str, str]:
    """Variables of uv's processes that say the same as pip's settings; those that are set already stay."""
    said = {
        "SSL_CERT_FILE": settings.get("cert"),
        "HTTPS_PROXY": settings.get("proxy"),
        "UV_HTTP_TIMEOUT": settings.get("timeout") or settings.get("default-timeout"),
    }
    return {name: value for name, value in said.items() if value} | dict(os.environ)


def choose_torch(asked: str, has_gpu: bool) -> str:
    """`cpu`, `index`, or what was asked for."""
    return asked if asked != "auto" else "index" if has_gpu else "cpu"


def summary(packages: Iterable[Mapping]) -> str:
    """Number and size of a lock file's wheels. Of several that fit a package the largest counts."""
    fetched = local = unknown = count = 0
    for package in packages:
        count += 1
        files = package.get("wheels") or [package.get("sdist", {})]
        paths = [Path(unquote(urlparse(file.get("url", "")).path)) for file in files]
        if files[0].get("url", "").startswith("file:"):
            local += max(path.stat().st_size for path in paths)
        elif size := max(file.get("size", 0) for file in files):
            fetched += size
        else:
            unknown += 1
    parts = [f"{count} packages", f"{fetched / 1e6:,.0f} MB from the package index unless they are in the cache"]
    if local:
        parts.append(f"{local / 1e6:,.0f} MB from this machine's disk")
    if unknown:
        parts.append(f"{unknown} of a size that the index does not tell")
    return ", ".join(parts)


def has_cuda(packages: Iterable[Mapping]) -> bool:
    """Whether a lock file has a PyTorch with CUDA."""
    return any(package["name"].startswith("nvidia-") for package in packages)


def _call(*command: str | Path, variables: Mapping[str, str] | None = None, show: bool = False) -> str:
    """Run a command in the project's folder and return its output; with `show` the user sees what it does instead."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=variables, text=True, capture_output=not show, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise Failure((done.stderr or f"{command[0]} ended with status {done.returncode}").strip())
    return done.stdout or ""


def _with_uv(venv: Path, torch: str, must: bool, pins: list[str | Path]) -> None:
    """Resolve, say what is fetched, and install.

    Args:
        must: stop where the wheels that were asked for cannot be had.
        pins: options that hold the versions.
    """
    python, uv, lock = venv / "bin" / "python", venv / "bin" / "uv", venv / "pylock.toml"
    _call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, "uv")
    settings = pip_settings(_call(python, "-m", "pip", "config", "list"))
    options, variables = ["--python", python, *uv_options(settings)], uv_variables(settings)
    held = [part for path in settings.get("constraint", "").split() for part in ("--constraints", path)]
    resolve = [uv, "pip", "compile", "--quiet", "pyproject.toml", "--extra", "dev", *pins]
    resolve += ["--format", "pylock.toml", "--output-file", lock, *held, *options]
    lock.unlink(missing_ok=True)  # its versions would be preferred
    try:
        backend = [] if torch == "index" else ["--torch-backend", BACKENDS.get(torch, torch)]
        _call(*resolve, *backend, variables=variables)
    except Failure as failure:
        if torch == "index":
            raise
        reason = str(failure).splitlines()[-1].strip()
        if must and torch not in (*BACKENDS, *BACKENDS.values()):  # no package index has others
            sys.exit(
                f"TORCH={torch} cannot be had: {PYTORCH_INDEX} cannot be reached or has no such wheels ({reason}). "
                "TORCH=cpu and TORCH=cuda are there whenever it is; TORCH=index takes what the package index has."
            )
        print(f"not from {PYTORCH_INDEX}, so from the package index, perhaps with CUDA: {reason}", flush=True)
        _call(*resolve, variables=variables)
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    version = next(package["version"] for package in packages if package["name"] == "torch")
    if must and torch != "index" and has_cuda(packages) != (torch != "cpu"):
        sys.exit(f"TORCH={torch} cannot be had: the package index has torch {version} alone. TORCH=index takes that.")
    cache = _call(uv, "cache", "dir", variables=variables).strip()
    print(f"to install: {summary(packages)}; torch {version}\n  to {venv}, by way of uv's cache {cache}", flush=True)
    # Compiled now, as pip does: where Python is told to write no bytecode, as in many containers, every run would else
    # compile thousands of modules anew, which takes longer than the imports.
    compiled = ["--compile-bytecode", "-r", lock]
    _call(uv, "pip", "install", "--quiet", *options, *compiled, variables=variables, show=True)
    _call(uv, "pip", "install", "--quiet", *options, "--no-deps", "-e", ".", variables=variables, show=True)


def _with_pip(venv: Path, torch: str, must: bool, pins: list[str | Path]) -> None:
    """Install with pip, which tells no sizes beforehand, and takes other wheels where an index is out of reach.

    Args:
        must: as in `_with_uv`.
    """
    size = "0.5 GB where torch comes without CUDA, 3.2 GB where it comes with it"
    print(f"to install: about 200 packages, {size}\n  to {venv}, by way of pip's cache", flush=True)
    python, wanted = venv / "bin" / "python", BACKENDS.get(torch, torch)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins]
    if torch != "index":  # alone, so that nothing else is looked for there
        again = ["--force-reinstall"] if must else []  # what is there for another TORCH would do for pip
        _call(*install, *again, "--no-deps", "--extra-index-url", f"{PYTORCH_INDEX}/{wanted}", "torch")
        if must and (found := _call(python, "-c", LABEL).strip()) != wanted:
            sys.exit(
                f"TORCH={torch} cannot be had: pip found torch for {found}, not {wanted}, as {PYTORCH_INDEX} cannot be "
                "reached or has no such wheels. TORCH=index takes what the package index has."
            )
    _call(*install, "-e", ".[dev]", show=True)


def _gigabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", type=Path, help="the virtual environment, made if it is not there")
    parser.add_argument(
        "--torch",
        default="auto",
        metavar="WHEELS",
        help="cpu or cuda: from PyTorch's own index (cuda is cu130; cu126 and the like work too); index: what the "
        "package index gives, on Linux with CUDA; auto, the default: index where there is an NVIDIA GPU, else cpu",
    )
    parser.add_argument("--installer", choices=("uv", "pip"), default="uv", help="pip is taken where uv fails")
    parser.add_argument("--newest", action="store_true", help="not the versions of constraints.txt")
    arguments = parser.parse_args()
    pins = [] if arguments.newest else ["-c", CONSTRAINTS]
    if not (3, 11) <= sys.version_info < (3, 14):
        sys.exit(f"obert needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; set PYTHON=/path/to/python3.11")
    venv, start = arguments.venv.absolute(), time.monotonic()
    gpu = shutil.which("nvidia-smi") is not None
    torch, must = choose_torch(arguments.torch, gpu), arguments.torch != "auto"
    reason = "TORCH says so" if must else f"{'an' if gpu else 'no'} NVIDIA GPU was found"
    print(f"PyTorch: {torch} wheels, as {reason} (make install TORCH=cpu|cuda|index)", flush=True)
    (venv / "installed").unlink(missing_ok=True)  # make asks it whether all is there
    try:
        _call(sys.executable, "-m", "venv", venv)
        if arguments.installer == "uv":
            try:
                _with_uv(venv, torch, must, pins)
            except Failure as failure:
                print(f"uv cannot be used, pip is: {failure}", flush=True)
                _with_pip(venv, torch, must, pins)
        else:
            _with_pip(venv, torch, must, pins)
    except Failure as failure:
        sys.exit(f"the installation failed: {failure}")
    (venv / "installed").write_text(f"{torch}\n", encoding="utf-8")
    print(f"installed: {_gigabytes(venv):.1f} GB in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
