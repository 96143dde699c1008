"""Runs in MLflow while they are made.

The process that makes a run imports nothing of MLflow and never waits for it: it writes what there is to tell into a
pipe, about once a second, and what does not fit in there is lost. At the other end is `_live_worker`, a process of its
own, since a thread would hold the interpreter's lock for seconds, for MLflow's import alone. It also survives a run
that is killed, and marks it. What was lost, or is wrong, the mirror of the record mends in the end.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from obert.records.listening import Listener, listening
from obert.tracking.mirror import beginning, scores
from obert.tracking.unfinished import IDENTITY_TAG, identity

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun
    from obert.records.record import Record, Score

# What the worker may take for itself. A run that is over before `delay` (seconds) is not worth MLflow's import, of more
# than one. Batches are at least `interval` seconds apart, and take a `share` of a core at most. Where all cores are
# busy, `niceness` spreads even the start over minutes.
PACE = {"delay": 10.0, "interval": 5.0, "share": 0.01, "niceness": 19}
SECONDS = 1.0  # at least between two messages to the worker
LINES = 30  # of a message, which is then shorter than what a pipe takes whole or not at all (4096 bytes)
END_SECONDS = 10.0  # what the worker may take to end, or it is killed
FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
VALUES = ("loss", "learning_rate", "sparsity")
log = logging.getLogger(__name__)


@contextmanager
def live(planned: PlannedRun) -> Iterator[None]:
    """A block that makes a run, which is in MLflow meanwhile. Whatever goes wrong with that does not touch the run.

    Of several processes the first tells. A stage that measures time is left alone: it would measure this as well.
    """
    from obert.foundation import processes  # torch

    if planned.stage.exclusive or not processes.is_first():
        yield
        return
    told = LiveRun(planned)
    try:
        with listening(told):
            yield
    except BaseException as error:
        told.end(FAILED if isinstance(error, Exception) else KILLED)
        raise
    told.end(FINISHED)


class LiveRun(Listener):
    """Tells a worker how a run gets on."""

    def __init__(self, planned: PlannedRun):
        self._planned = planned
        self._worker: subprocess.Popen | None = None
        self._record: Record | None = None
        self._steps: list[list[float | None]] = []
        self._last = 0.0

    def started(self, record: Record) -> None:
        try:
            self._record = record
            uri, folder = self._planned.experiment.tracking_uri, self._planned.folder
            begun = beginning(record, self._planned.config) | PACE
            begun["tags"] |= {IDENTITY_TAG: identity(record), "status": "running"}
            self._worker = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}._live_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            os.set_blocking(self._worker.stdin.fileno(), False)
            # Not as arguments, which everyone sees who lists processes: there may be a password in the address.
            if not self._send({**begun, "uri": uri, "folder": str(folder.absolute())}):
                self._give_up()
        except Exception:
            log.debug("not live", exc_info=True)
            self._give_up()

    def stepped(self, lines: Sequence[dict[str, Any]]) -> None:
        if self._worker is None:
            return
        now = _milliseconds()
        self._steps += [[line["step"], now, *(line.get(name) for name in VALUES)] for line in lines]
        if time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            self._send_steps()

    def evaluated(self, metrics: dict[str, Score], primary: str) -> None:
        if self._worker is not None:
            self._send_steps()
            evaluated = self._record.model_copy(update={"metrics": metrics, "primary_metric": primary})
            self._send({"time": _milliseconds(), "scores": scores(evaluated)})

    def end(self, status: str) -> None:
        """The run is over; the worker is too when this returns."""
        if self._worker is None:
            return
        self._send_steps()
        self._send({"end": status})
        try:
            self._worker.stdin.close()
            self._worker.wait(END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._give_up()

    def _send_steps(self) -> None:
        steps, self._steps = self._steps, []
        for i in range(0, len(steps), LINES):
            self._send({"steps": steps[i : i + LINES]})

    def _send(self, message: dict[str, Any]) -> bool:
        """Whether a message is in the pipe; it is lost if the pipe is full."""
        line = json.dumps(message).encode() + b"\n"
        try:
            return self._worker is not None and self._worker.stdin.write(line) == len(line)
        except OSError:  # the worker is gone
            self._give_up()
            return False

    def _give_up(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()
            with suppress(OSError):
                worker.stdin.close()


def _milliseconds() -> int:
    return round(1000 * time.time())
