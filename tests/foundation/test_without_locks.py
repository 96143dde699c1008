"""A project on a file system without locks: a run that was made is kept, and what is missing is told."""

import errno
import os
from pathlib import Path

import pytest
from planned import made, results_in

from obert.commands.cli import main
from obert.experiment.plan import Plan


@pytest.fixture
def without_locks(root, tmp_path, monkeypatch):
    """A folder for results in which no lock can be had."""
    import fcntl

    flock = fcntl.flock

    def refuse(file, operation):
        number = file if isinstance(file, int) else file.fileno()
        if Path(f"/proc/self/fd/{number}").readlink().is_relative_to(tmp_path):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return flock(file, operation)

    results_in(tmp_path, monkeypatch)
    monkeypatch.setattr(fcntl, "flock", refuse)
    return tmp_path


@pytest.mark.parametrize("stage", ["teacher", "downstream"])
def test_a_run_is_kept_though_its_mirror_cannot_be_locked(without_locks, capsys, stage):
    plan = Plan.load("configs/smoke.yaml")
    teacher = plan.find("teacher", task="movie_reviews")
    chosen = teacher
    if stage == "downstream":
        made(teacher)
        chosen = plan.find("downstream", task="movie_reviews", recipe="smoke_one_shot", method="magnitude")
    assert main([stage, "--config", "configs/smoke.yaml", *chosen.key.arguments.split()]) == 0
    assert (chosen.folder / "metrics.json").is_file() and (chosen.folder / "model" / "model.safetensors").is_file()
    said = capsys.readouterr().err
    assert "the run is complete, but not in MLflow: cannot lock" in said and os.strerror(errno.ENOLCK) in said
    assert "obert track --config configs/smoke.yaml" in said
