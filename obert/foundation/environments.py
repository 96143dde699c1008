"""Virtual environments of their own, for libraries that cannot be installed beside this project's.

`workflow/envs/<library>.txt` pins everything that is in one, `results/environments/<library>/` is where it is made, and
`results/environments/<library>.json` says what came of it. One that cannot be made is a stated reason, not an error.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from obert.foundation.errors import UserError
from obert.foundation.files import file_hash, partial_folder, write_text

FOLDER = Path("results/environments")
REQUIREMENTS = Path("workflow/envs")
MARKER = "installed.json"
_PROBE = "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"
_SECONDS = 1800  # for any one step: a few hundred MB may have to come over a slow line


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one library and what it needs.

    Attributes:
        library: the Python package; also the name of the requirements file and of the folder.
        pythons: versions of CPython that the library has wheels for, the preferred first.
        system: `sys.platform` that it has wheels for.
        machine: the processor architecture that it has wheels for.
        variables: of the processes that run in it.
    """

    library: str
    pythons: tuple[str, ...]
    system: str
    machine: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return FOLDER.absolute() / self.library / "bin" / "python"

    @property
    def report(self) -> Path:
        """What came of making it: the hash of the requirements, and the reason if there is no such environment."""
        return FOLDER / f"{self.library}.json"

    def make(self) -> str | None:
        """Make the environment unless it is there. Several processes may do so at once.

        It is built beside its place and moved there whole, with a marker of what is in it.

        Returns:
            None, or one line that says why there is none: platform, Python, or what the last command said.
        """
        reason = None
        try:
            with partial_folder(FOLDER / self.library) as partial:
                if not self._is_made():
                    self._build(partial)
        except (UserError, OSError) as error:
            reason = " ".join(str(error).split())
        write_text(self.report, json.dumps({"requirements": self._pins(), "reason": reason}, indent=1) + "\n")
        return reason

    def missing(self, package: str) -> str | None:
        """None if `package` is there, else one line that says why not and what to do."""
        if not self._is_made():
            command = f"python -m obert environment --engine {self.library}"
            try:
                report = json.loads(self.report.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                report = {}
            if report.get("requirements") == self._pins() and report.get("reason"):
                return f"it could not be made ({report['reason']}); `{command}` tries again"
            return f"it has not been made from {REQUIREMENTS / self.library}.txt; `{command}` does"
        if not any((FOLDER / self.library).glob(f"lib/python*/site-packages/{package}")):
            return f"the package is not among those of {REQUIREMENTS / self.library}.txt"
        return None

    def _pins(self) -> str | None:
        path = REQUIREMENTS / f"{self.library}.txt"
        return file_hash(path) if path.is_file() else None

    def _is_made(self) -> bool:
        """Whether the marker, which is written last, is of the present requirements."""
        try:
            marker = json.loads((FOLDER / self.library / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return marker == {"requirements": self._pins()} and self.interpreter.exists()

    def _build(self, partial: Path) -> None:
        python = self._find_python()
        _run([python, "-I", "-m", "venv", str(partial)])
        inside = [str(partial / "bin" / "python"), "-I"]
        # Wheels alone, as to build from source is to run what is downloaded; and nothing that is not pinned.
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps"]
        _run([*inside, "-m", "pip", "install", *options, "-r", str(REQUIREMENTS / f"{self.library}.txt")])
        # A processor without the instructions it needs shows here.
        _run([*inside, "-c", f"import {self.library}"], self.variables)
        write_text(partial / MARKER, json.dumps({"requirements": self._pins()}) + "\n")
        target = FOLDER / self.library
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)

    def _find_python(self) -> str:
        """The Python to make it with: the one that runs, or the first on PATH that fits and can make environments."""
        found = f"{sys.platform} on {platform.machine()}"
        wanted = f"{self.system} on {self.machine}"
        if found != wanted:
            raise UserError(f"{self.library} has wheels for {wanted} alone, this is {found}")
        for candidate in (sys.executable, *(f"python{version}" for version in self.pythons)):
            if _version(candidate) in self.pythons:
                return candidate
        raise UserError(
            f"{self.library} has wheels for Python {', '.join(self.pythons)}; this is "
            f"{platform.python_version()}, and none of them with its modules venv and ensurepip is on PATH"
        )


def _version(python: str) -> str | None:
    try:
        done = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> None:
    """Run a command. Raises UserError with the last line that it wrote to stderr."""
    shown = " ".join(command[1:6])
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=os.environ | dict(variables or {}),
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"`python {shown} ...` did not end within {_SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
        raise UserError(f"`python {shown} ...` failed: {last}")
