"""An engine in a process of its own, in another Python environment: every wait ends, and so does the process."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from obert.engines import EngineError
from obert.engines._deepsparse_worker import PROTOCOL, receive, send

START_SECONDS = 120.0
_END_SECONDS = 10.0
_LAST_LINES = 12


class Worker:
    """A running worker process, which answers one request at a time.

    Attributes:
        version: of the library, as the worker said.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], label: str):
        """Start a worker and wait for its first message.

        Args:
            command: the Python of its environment, and its script.
            variables: of its environment, besides this process's.
            label: the engine's, for messages.

        Raises:
            EngineError: it does not start, or speaks another version of the protocol.
        """
        self._label = label
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, as long as the worker lives
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command, stdin=theirs, stdout=self._log, stderr=self._log, env=os.environ | dict(variables)
                )
            except OSError as error:
                raise EngineError(f"{label}'s worker could not be started: {error}") from None
        self._channel, self._answers = ours, ours.makefile("rb")
        self.close = weakref.finalize(self, _end, self._process, ours, self._answers)
        """End the process; also done when the worker is no longer used."""
        hello, _ = self._exchange("start", None, (), START_SECONDS)
        if hello.get("protocol") != PROTOCOL:
            self._fail(f"speaks version {hello.get('protocol')} of the protocol, not {PROTOCOL}")
        self.version = str(hello.get("version"))

    def request(
        self, header: Mapping[str, Any], arrays: Sequence[np.ndarray] = (), *, seconds: float
    ) -> list[np.ndarray]:
        """Send a request, and wait for the arrays of its answer.

        Args:
            header: what to `do`, and its parameters.
            seconds: to wait for each part of the exchange.

        Raises:
            EngineError: the library raised an exception, or the worker crashed or does not answer, which ends it.
        """
        answer, found = self._exchange(header["do"], header, arrays, seconds)
        if "error" in answer:
            raise EngineError(f"{self._label}, {header['do']}: {answer['error']}")
        return found

    def log_size(self) -> int:
        """Bytes that the worker has written to its standard output and error."""
        return os.fstat(self._log.fileno()).st_size

    def log(self, start: int = 0) -> str:
        """What the worker has written to its standard output and error, from a byte on."""
        # The process writes at the position of the same open file, which reading must not move.
        return os.pread(self._log.fileno(), self.log_size() - start, start).decode(errors="replace")

    def _exchange(
        self, task: str, header: Mapping[str, Any] | None, arrays: Sequence[np.ndarray], seconds: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        if not self.close.alive:
            raise EngineError(f"{self._label}'s worker has ended")
        try:
            self._channel.settimeout(seconds)
            if header is not None:
                send(self._channel, header, arrays)
            return receive(self._answers)
        except TimeoutError:
            self._fail(f"gave no answer to '{task}' within {seconds:g} s")
        except ValueError as error:
            self._fail(f"answered '{task}' with something else than a message: {error}")
        except (EOFError, OSError):
            self._fail(f"ended at '{task}' {_ending(self._process)}")

    def _fail(self, what: str) -> NoReturn:
        """End the worker, and say what happened and what it wrote last."""
        self.close()
        # What comes before a native stack trace tells more than the trace.
        written = self.log().partition("\nBacktrace:")[0].splitlines()
        last = [line for line in written if line.strip()][-_LAST_LINES:]
        raise EngineError("\n".join([f"{self._label}'s worker {what}.", *(["It wrote last:", *last] if last else [])]))


def _ending(process: subprocess.Popen) -> str:
    """How a process ended."""
    try:
        status = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "its connection"
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def _end(process: subprocess.Popen, *connection: Any) -> None:
    for end in reversed(connection):
        with contextlib.suppress(OSError):
            end.close()
    process.kill()
    process.wait()
