"""A stage that is killed while it trains: `obert status` shows where it is, that it was killed, and that it is done."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 600
CHECKPOINTS = Path("results/checkpoints/watched/teacher/movie_reviews/smoke_finetune/dense/seed0")


@pytest.fixture
def folder(tmp_path):
    """A project with a teacher that takes a while."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    longer = {"training": {"epochs": STEPS / 6, "checkpoint_steps": 50}}
    content = {
        "name": "watched",
        "description": "A run that takes long enough to be looked at.",
        "model": {"source": "tests/data/tiny_bert"},
        "tasks": {"movie_reviews": {"source": "tests/data/movie_reviews", "max_length": 32}},
        "threads": 1,
        "teacher": "smoke_finetune",
        "recipe_overrides": {"movie_reviews": {"smoke_finetune": longer}},
    }
    (tmp_path / "watched.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def obert(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "obert", *arguments, "--config", "watched.yaml"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def status(folder):
    return obert(folder, "status").communicate()[0].decode()


def test_what_is_said_before_and_after_a_kill(folder):
    assert obert(folder, "check").wait() == 0  # counts what it trains on
    assert "0 of 1 runs done, 1 waiting; about " in status(folder)
    run = obert(folder, "teacher")
    deadline = time.monotonic() + 300
    while not (found := re.search(r"step (\d+) of (\d+), loss ", said := status(folder))):
        assert run.poll() is None and time.monotonic() < deadline, said
    assert int(found[2]) == STEPS and 0 < int(found[1]) <= STEPS
    assert "0 of 1 runs done, 1 running; about " in said
    while not list((folder / CHECKPOINTS).glob("checkpoint-*/complete.json")):
        assert run.poll() is None and time.monotonic() < deadline
    run.send_signal(signal.SIGKILL)
    run.wait()
    said = status(folder)
    assert "0 of 1 runs done, 1 stopped; about " in said
    assert "has gone (killed, or the machine went down), at step " in said
    assert re.search(r"the same command goes on from step \d+0\n", said)
    again = obert(folder, "teacher")
    assert "resuming from" in again.communicate()[0].decode() and again.returncode == 0
    assert status(folder).startswith("experiment watched: 1 of 1 runs done\n")
    assert not (folder / CHECKPOINTS).exists()
