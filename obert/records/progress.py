"""How far runs are while they are made: one small file each, beside their checkpoints.

The process that makes a run keeps what there is to tell in memory. A thread of it writes the file: every SECONDS if
there is news, every BEAT if there is none. The file is gone when the run is complete. Where the run failed, it says
why. Where its process was killed, that process is not there any more, or, as seen from another machine, the file has
not changed for a while.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.foundation.passwords import masked
from obert.records.listening import Listener, listener, listening

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun
    from obert.records.record import Record, Score

FILE_NAME = "progress.json"
SECONDS, BEAT = 2.0, 30.0
SILENT = 5 * BEAT  # after which the process of another machine is taken for dead
SAME_START = 2.0  # seconds within which two readings of when a process started are the same
LONGEST = 2000  # characters of a message
FAILED, INTERRUPTED = "failed", "interrupted"


class Progress(BaseModel):
    """What the file says.

    Attributes:
        host, pid, created: the process, and when it started (Unix time): numbers of processes are used again.
        started_at: when it began to make the run.
        step, loss, sparsity: of the last optimiser step that was told of; None before the first.
        step_seconds: of a step, pruning included: the mean since the first that this process told of.
        ended: how the process left the run, None as long as it has not.
        message: why.
    """

    model_config = ConfigDict(allow_inf_nan=False)  # in a file: what is told in memory is copied unchecked

    host: str
    pid: int = Field(gt=0)
    created: float
    started_at: datetime
    step: int | None = None
    loss: float | None = None
    sparsity: float | None = None
    step_seconds: float | None = None
    ended: Literal["failed", "interrupted"] | None = None
    message: str = ""


@dataclass(frozen=True)
class Seen:
    """A run's progress as its file has it.

    Attributes:
        alive: whether a process is at it.
        written: when the file was (Unix time).
    """

    progress: Progress
    alive: bool
    written: float


def look(folder: Path) -> Seen | None:
    """The progress of the run whose checkpoints are in a folder; None where none is told, or not by this version."""
    path = folder / FILE_NAME
    try:
        written = path.stat().st_mtime
        progress = Progress.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return Seen(progress, progress.ended is None and _is_alive(progress, written), written)


def _is_alive(progress: Progress, written: float) -> bool:
    if progress.host != platform.node():
        return time.time() - written < SILENT
    try:
        process = psutil.Process(progress.pid)
        return abs(process.create_time() - progress.created) < SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_for_another(planned: PlannedRun) -> bool:
    """Wait for a process that makes a run already, and say so: whoever starts runs and is killed leaves them behind.

    Of several processes that torchrun starts, the first waits, until one of another machine that has been killed would
    be taken for dead. It waits no longer, as the others wait for it to make the run with them. They look for nobody:
    whom they saw might be the first.

    Returns:
        Whether what the other one has left, if it is complete, is to be taken for this process's run.

    Raises:
        UserError: there is one still, and this is the first of several processes.
    """
    rank, count = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    began, waited = time.monotonic(), False
    while rank == 0 and (seen := look(planned.checkpoints)) is not None and seen.alive:
        other = f"process {seen.progress.pid} on {seen.progress.host}"
        if not waited:
            print(f"{other} makes it already: waiting", flush=True)
            waited = True
        if count > 1 and time.monotonic() - began > SILENT:
            raise UserError(
                f"{planned.key.path}: {other} makes it already, and two would overwrite each other's checkpoints. "
                "Start this again when it has ended, or end it: the same command goes on from the last checkpoint"
            )
        time.sleep(SECONDS)
    return waited and count == 1


@contextmanager
def shown(planned: PlannedRun) -> Iterator[None]:
    """A block that makes a run, whose progress others see. Whatever goes wrong with that does not touch the run.

    Who listens outside the block still does. Of several processes the first tells.
    """
    from obert.foundation import processes  # torch

    if not processes.is_first():
        yield
        return
    # What measures time tells of no steps, and is disturbed as rarely as may be.
    told = Telling(planned.checkpoints / FILE_NAME, listener(), BEAT if planned.stage.exclusive else SECONDS)
    try:
        with listening(told):
            yield
    except BaseException as error:
        told.end(error)
        raise
    told.end()


class Telling(Listener):
    """Writes a run's file, from its start to its end.

    Args:
        others: who is told as well.
        seconds: at least, between two writes.
    """

    def __init__(self, path: Path, others: Listener, seconds: float = SECONDS):
        process = psutil.Process()
        self._path, self._others, self._seconds = path, others, seconds
        self._known = Progress(
            host=platform.node(), pid=os.getpid(), created=process.create_time(), started_at=datetime.now(UTC)
        )
        self._first: tuple[int, float] | None = None
        self._over = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def started(self, record: Record) -> None:
        self._others.started(record)

    def stepped(self, lines: Sequence[dict[str, Any]]) -> None:
        self._others.stepped(lines)
        line, now = lines[-1], time.monotonic()
        first, since = self._first = self._first or (line["step"], now)
        told = {name: line.get(name) for name in ("step", "loss", "sparsity")}
        if line["step"] > first:
            told["step_seconds"] = (now - since) / (line["step"] - first)
        self._known = self._known.model_copy(update=told)

    def evaluated(self, metrics: dict[str, Score], primary: str) -> None:
        self._others.evaluated(metrics, primary)

    def end(self, error: BaseException | None = None) -> None:
        """The run is over: complete, or ended by an error."""
        self._over.set()
        self._thread.join()
        if error is None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return
        ended = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".rstrip(": ")
        self._known = self._known.model_copy(update={"ended": ended, "message": masked(reason)[:LONGEST]})
        self._write()

    def _keep(self) -> None:
        written, at = self._known, time.monotonic()
        while not self._over.wait(self._seconds):
            if self._known is not written or time.monotonic() - at >= BEAT:
                written, at = self._known, time.monotonic()
                self._write()

    def _write(self) -> None:
        with suppress(OSError):
            write_text(self._path, self._known.model_dump_json() + "\n")
