"""kill -9 at a moment of one's choice: the command runs in a fork of the test, which ends itself there."""

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "shutil.rmtree")


def changes(command: Callable[[], object], folder: Path) -> int:
    """How often a command changes the files below a folder: each opening for writing, renaming, deletion and so on."""
    reading, writing = os.pipe()
    status = _forked(command, _Counter(folder, report=writing))
    os.close(writing)
    with os.fdopen(reading) as said:
        counted = said.read()
    assert status == 0, "the command fails"
    return len(counted)


def killed_before_change(command: Callable[[], object], folder: Path, number: int) -> bool:
    """Run a command that is killed before it changes a file below a folder for the `number`th time, from 0.

    Returns:
        Whether it was; one that ends before has ended well.
    """
    status = _forked(command, _Counter(folder, last=number))
    assert status in (0, -signal.SIGKILL), "the command fails"
    return status != 0


def killed_after(command: Callable[[], object], seconds: float) -> bool:
    """The same by the clock: wherever the command is then, in the middle of a write as well."""

    def start() -> None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    status = _forked(command, start)
    assert status in (0, -signal.SIGKILL), "the command fails"
    return status != 0


def chosen(count: int, of: int, seed: int = 0) -> list[int]:
    """The first, the last and some moments between them, drawn at random and always the same."""
    between = random.Random(seed).sample(range(1, of - 1), min(count - 2, max(of - 2, 0)))
    return sorted({0, *between, of - 1})


class _Counter:
    """Counts changes of files in this process, tells of each or ends the process at one."""

    def __init__(self, folder: Path, last: int | None = None, report: int | None = None):
        self.folder, self.last, self.report, self.found = str(folder.resolve()), last, report, 0

    def __call__(self) -> None:
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITES:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        # What a deletion of a folder names by descriptor has no folder in its name.
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if not str(Path.cwd() / os.fsdecode(path)).startswith(self.folder):
            return
        if self.report is not None:
            os.write(self.report, b".")
        if self.found == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.found += 1


def _forked(command: Callable[[], object], start: Callable[[], None]) -> int:
    """The exit status of a command in a fork, minus the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
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
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
