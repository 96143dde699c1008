"""Threads that a kernel's work is shared between."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait


def available_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Team:
    """The calling thread and `threads` - 1 others, which sleep between calls.

    Work that is shared through a counter is done whoever comes: a thread that is late, or was never started, leaves its
    part to the others. After a fork the child has threads of its own.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, work: Callable[[int], None]) -> None:
        """Call `work` with 0 in this thread, and with 1, 2, ... in others. Raises what any of them raises."""
        futures = [self._helpers().submit(work, number) for number in range(1, self.threads)]
        try:
            work(0)
        finally:
            started = [future for future in futures if not future.cancel()]
            wait(started)
        for future in started:
            future.result()

    def _helpers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._process != os.getpid():
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="obert-sparse")
                self._process = os.getpid()
            return self._pool
