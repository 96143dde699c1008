"""Runs of an experiment that a command makes by itself, each by its own command line, with what it prints in a log."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from obert.experiment.folders import log_file
from obert.experiment.plan import Plan, PlannedRun
from obert.foundation.errors import UserError
from obert.records.finished import finished
from obert.records.job_log import last_message
from obert.records.progress import wait_for_another
from obert.records.record import Record


@dataclass(frozen=True)
class Runs:
    """Makes runs of a plan that was loaded from a file, with logs where Snakemake has them and `obert status` looks."""

    plan: Plan

    def make(self, run: PlannedRun) -> Record:
        """The record of a run, which is made unless it is there.

        Raises:
            UserError: it failed; its log is named.
        """
        found = finished(run)
        for way in (wait_for_another, self._start):
            if found is None:
                way(run)
                found = finished(run)
        if found is None:
            raise UserError(f"{run.key.path}: no record was left. What was printed is in {self._log(run)}")
        return found

    def _start(self, run: PlannedRun) -> None:
        log = self._log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        own = [run.stage.name, "--config", str(self.plan.config), *shlex.split(run.key.arguments)]
        with log.open("wb") as printed:
            done = subprocess.run(
                [sys.executable, "-m", "obert", *own], stdout=printed, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            said = last_message(log) or f"it ended with status {done.returncode}"
            raise UserError(
                f"{run.key.path} failed: {said.rstrip('.')}. All that it printed is in {log}. The same command goes on"
            )

    def _log(self, run: PlannedRun) -> Path:
        return log_file(run.experiment, run.key)
