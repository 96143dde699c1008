"""kill -9 at a moment of one's choice: the command runs in a fork of the test, which ends itself there."""

import gc
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "shutil.rmtree")


def changes(command: Callable[[], object], folder: Path) -> int:
    """How often a command changes the files below a folder: each opening for writing, renaming, deletion and so on."""
    return _count(command, lambda report: _Changes(folder, report=report))


def killed_before_change(command: Callable[[], object], folder: Path, number: int) -> bool:
    """Run a command that is killed before it changes a file below a folder for the `number`th time, from 0.

    Returns:
        Whether it was; one that ends before has ended well.
    """
    return _is_killed(command, _Changes(folder, last=number))


def killed_after(command: Callable[[], object], seconds: float) -> bool:
    """The same by the clock, from outside: wherever the command is then, in the middle of a write as well."""
    child = _fork(command, lambda: None)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _was_killed(os.waitstatus_to_exitcode(status))
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return _was_killed(_status(child))


def killed_by_itself(command: Callable[[], object]) -> bool:
    """The same for a command that kills its own process, at a moment that only it knows."""
    return _is_killed(command, lambda: None)


def calls(command: Callable[[], object], module: str) -> int:
    """How often a command calls functions of a module, or of a package, in this thread."""
    return _count(command, lambda report: _Calls(module, report=report))


def killed_before_call(command: Callable[[], object], module: str, number: int) -> bool:
    """The same before the `number`th call of a function of a module, from 0."""
    return _is_killed(command, _Calls(module, last=number))


def chosen(count: int, of: int, seed: int = 0) -> list[int]:
    """The first, the last and some moments between them, drawn at random and always the same."""
    between = random.Random(seed).sample(range(1, of - 1), min(count - 2, max(of - 2, 0)))
    return sorted({0, *between, of - 1})


class _Moments:
    """Moments of this process, which are told of, or at one of which it ends.

    Args:
        last: the number of that one.
        report: a pipe that gets a byte for each.
    """

    def __init__(self, last: int | None = None, report: int | None = None):
        self.last, self.report, self.found = last, report, 0

    def pass_one(self) -> None:
        if self.report is not None:
            os.write(self.report, b".")
        if self.found == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.found += 1


class _Changes(_Moments):
    """Changes of files below a folder."""

    def __init__(self, folder: Path, **options: int):
        super().__init__(**options)
        self.folder = str(folder.resolve())

    def __call__(self) -> None:
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        if event not in ("open", *CHANGES) or (event == "open" and not arguments[2] & WRITES):
            return
        path = arguments[0]  # a number, or a name without its folder, where a folder is deleted with all in it
        if isinstance(path, str | bytes | os.PathLike) and str(Path.cwd() / os.fsdecode(path)).startswith(self.folder):
            self.pass_one()


class _Calls(_Moments):
    """Calls of a module's functions."""

    def __init__(self, module: str, **options: int):
        super().__init__(**options)
        self.module = module

    def __call__(self) -> None:
        sys.setprofile(self.hear)

    def hear(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and f"{frame.f_globals.get('__name__')}.".startswith(f"{self.module}."):
            self.pass_one()


def _count(command: Callable[[], object], moments: Callable[[int], _Moments]) -> int:
    reading, writing = os.pipe()
    counted = 0
    with os.fdopen(reading, "rb") as said:
        child = _fork(command, moments(writing))
        os.close(writing)
        counted = len(said.read())
    assert (status := _status(child)) == 0, f"the command fails with status {status}"
    return counted


def _is_killed(command: Callable[[], object], start: Callable[[], object]) -> bool:
    return _was_killed(_status(_fork(command, start)))


def _was_killed(status: int) -> bool:
    assert status in (0, -signal.SIGKILL), f"the command fails with status {status}"
    return status != 0


def _fork(command: Callable[[], object], start: Callable[[], object]) -> int:
    """The process in which a command runs."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        gc.freeze()  # what other tests left is not to be collected here, where its threads are not
        status = 1
        try:
            start()
            command()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def _status(child: int) -> int:
    """The exit status of a process, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
