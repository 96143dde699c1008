"""The process that logs a run while another makes it, as `live` tells it through the standard input.

It ends when that ends: told so, or because the other process is gone, which leaves nobody at the pipe. It takes a
hundredth of a core at most, after a start that a run that is over soon does not see; where no core is idle, it gets
little more than that of one even then, since it is as nice as can be.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

AFTER_FAILURE = 60.0  # seconds
QUEUE = 300  # steps: three metrics each are less than MLflow takes in one request
POLL = 1.0
FINISHED, KILLED = "FINISHED", "KILLED"  # as in `live`, whose imports take longer than all of this
VALUES = ("loss", "learning_rate", "sparsity")


class Inbox:
    """What has been told and is not logged yet. Steps beyond QUEUE are thinned out, so that those left span all."""

    def __init__(self, stream: BinaryIO):
        self.begun = json.loads(stream.readline() or b"null")
        self.end: str | None = None
        self._steps: list[list[float | None]] = []
        self._told, self._stride = 0, 1  # since steps were taken: how many came, of how many one is kept
        self._scores: dict[str, Any] | None = None
        self._news = threading.Condition()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: BinaryIO) -> None:
        end = KILLED
        try:
            for line in stream:
                message = json.loads(line)
                end = message.get("end", end)
                with self._news:
                    for step in message.get("steps", []):
                        self._add(step)
                    if "scores" in message:
                        self._scores = message
                        self._news.notify()
        finally:
            with self._news:
                self.end = end
                self._news.notify()

    def _add(self, step: list[float | None]) -> None:
        if self._told % self._stride == 0:
            self._steps.append(step)
        self._told += 1
        if len(self._steps) > QUEUE:
            del self._steps[1::2]
            self._stride *= 2

    def take(self) -> tuple[list[list[float | None]], dict[str, Any] | None]:
        """Steps and scores, which are then no longer here."""
        with self._news:
            taken = self._steps, self._scores
            self._steps, self._scores, self._told, self._stride = [], None, 0, 1
            return taken

    def wait(self, seconds: float, for_scores: bool = False) -> None:
        """Wait, but no longer than until the end, or until there are scores."""
        with self._news:
            self._news.wait_for(lambda: self.end is not None or (for_scores and self._scores is not None), seconds)


def main() -> None:
    """Log one run."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the run; this process still has to mark it
        signal.signal(sign, signal.SIG_IGN)
    inbox = Inbox(sys.stdin.buffer)
    if inbox.begun is not None:
        os.nice(inbox.begun["niceness"])
        inbox.wait(inbox.begun["delay"])
        if inbox.end is None:
            _log(inbox)


def _log(inbox: Inbox) -> None:
    from obert.foundation.errors import UserError
    from obert.foundation.locks import locked
    from obert.tracking.store import connection, initialize
    from obert.tracking.unfinished import LIVE_LOCK

    begun, run = inbox.begun, None
    with ExitStack() as life:
        while inbox.end is None:
            try:
                life.enter_context(locked(Path(begun["folder"]) / LIVE_LOCK, wait=False))
                break
            except BlockingIOError:  # the worker of a run that was killed still marks it, or the run is made twice
                inbox.wait(POLL)
        while inbox.end != FINISHED:  # what is left is the mirror's
            ended = inbox.end
            try:
                if run is None:
                    initialize(begun["uri"])
                with connection(begun["uri"]) as client:
                    run = run or _Run(client, begun)
                    before = time.process_time()
                    run.log(client, *inbox.take())
                    if ended is not None:
                        client.set_terminated(run.identifier, ended)
            except UserError:  # what was taken is lost
                run = None
            if ended is not None:
                return
            if run is None:
                inbox.wait(AFTER_FAILURE)
            else:
                inbox.wait(max(begun["interval"], (time.process_time() - before) / begun["share"]), for_scores=True)


class _Run:
    """The MLflow run, which is continued if there is one of the same identity."""

    def __init__(self, client: Any, begun: dict[str, Any]):
        from obert.foundation.locks import locked
        from obert.tracking.naming import PATH_TAG
        from obert.tracking.store import LOCK, experiment_id, find_runs
        from obert.tracking.unfinished import IDENTITY_TAG, is_unfinished

        tags = begun["tags"]
        experiment = experiment_id(client, begun["experiment"], begun["uri"])
        with locked(Path(begun["folder"]) / LOCK):
            old = find_runs(client, experiment, f"tags.{PATH_TAG} = '{tags[PATH_TAG]}'")
            found = [run for run in old if is_unfinished(run)]
            same = [run for run in found if run.data.tags[IDENTITY_TAG] == tags[IDENTITY_TAG]]
            for run in found:
                if run.info.status == "RUNNING" and run not in same:
                    client.set_terminated(run.info.run_id, KILLED)
            if same:
                self.identifier, self._scores = same[0].info.run_id, set(same[0].data.metrics)
                client.update_run(self.identifier, "RUNNING")
                self._steps = {metric.step for metric in client.get_metric_history(self.identifier, VALUES[0])}
            else:
                self.identifier, self._scores, self._steps = self._create(client, experiment, begun), set(), set()

    def _create(self, client: Any, experiment: str, begun: dict[str, Any]) -> str:
        from obert.tracking.mirror import log_params

        run = client.create_run(experiment, begun["start_time"], begun["tags"], begun["name"]).info.run_id
        log_params(client, run, begun["params"])
        return run

    def log(self, client: Any, steps: Iterable[list[float | None]], evaluated: dict[str, Any] | None) -> None:
        """Log what is new: a run that goes on from a checkpoint makes the steps after it a second time."""
        from mlflow.entities import Metric

        metrics = []
        for step, milliseconds, *values in steps:
            if step not in self._steps:
                self._steps.add(step)
                named = zip(VALUES, values, strict=True)
                metrics += [Metric(n, v, milliseconds, step) for n, v in named if v is not None and not math.isnan(v)]
        if evaluated is not None:
            new = {name: value for name, value in evaluated["scores"].items() if name not in self._scores}
            metrics += [Metric(name, value, evaluated["time"], 0) for name, value in new.items()]
        if metrics:
            client.log_batch(self.identifier, metrics)


if __name__ == "__main__":
    main()
    os._exit(0)  # rather than take MLflow apart, for which the run would wait
