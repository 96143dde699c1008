"""What a terminal shows while Snakemake works: how far the experiment is, in place of a dozen lines for each job."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from obert.commands.status import DONE, RUNNING, State, Watch
from obert.records.job_log import last_message

DRAWN, PRINTED = 2.0, 60.0  # seconds between two looks, on a terminal and in a file
SHARE = 0.005  # of a core at most, which the runs want for themselves
LINES = 8  # runs that are named at a time
BAR = "{percentage:3.0f} %|{bar:20}| {desc}"


class Follower:
    """Tells how far an experiment is, from `start` to `end`: on a terminal in lines that are drawn anew, elsewhere in a
    line a minute, if anything has changed."""

    def __init__(self, watch: Watch, stream: TextIO | None = None):
        self._watch, self._stream = watch, stream or sys.stderr
        self._over = threading.Event()
        self._bars: list[tqdm] = []
        self._last = ""
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own, which ends with the process."""
        if self._stream.isatty():
            options = {"file": self._stream, "leave": False, "dynamic_ncols": True}
            self._bars = [tqdm(total=len(self._watch.plan), bar_format=BAR, position=0, **options)]
            shown = range(1, 1 + min(self._watch.cores, LINES))
            self._bars += [tqdm(total=0, bar_format="{desc}", position=i, **options) for i in shown]
        self._thread.start()

    def end(self) -> None:
        """Tell a last time, and no more."""
        self._over.set()
        self._thread.join()
        for bar in reversed(self._bars):
            with suppress(OSError, ValueError):
                bar.close()
        self._bars = []
        self._tell_now()

    def say(self, text: str) -> None:
        """Print something of another's, above what is drawn."""
        with suppress(OSError, ValueError):
            tqdm.write(text, file=self._stream)

    def failed(self, name: str, logs: Sequence[str]) -> None:
        """Tell that a job has failed: its last words, and where the rest is.

        Args:
            name: of the job.
        """
        lines = [f"{name} failed"]
        for log in logs:
            lines += [f"    {line}" for line in last_message(Path(log)).splitlines()]
            lines.append(f"    log: {log}")
        self.say("\n".join(lines))

    def _follow(self) -> None:
        pause = DRAWN if self._bars else PRINTED
        while True:
            began = time.monotonic()
            self._tell_now()
            if self._over.wait(max(pause, (time.monotonic() - began) / SHARE)):
                return

    def _tell_now(self) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more, for which no job may fail
            self._tell(self._watch.look())

    def _tell(self, states: Sequence[State]) -> None:
        running = [f"{state.run.key.path}: {state.pace or 'begun'}" for state in states if state.name == RUNNING]
        headline = self._watch.headline(states)
        if not self._bars:
            line = "; ".join([headline, *running[:LINES]])
            if line != self._last:
                self._last = line
                self.say(f"{time.strftime('%H:%M')} {line}")
            return
        first, *others = self._bars
        first.n = sum(state.name == DONE for state in states)
        first.set_description_str(headline)
        for bar, text in zip(others, [*running, *[""] * LINES], strict=False):
            bar.set_description_str(text)
