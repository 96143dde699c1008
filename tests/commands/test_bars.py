"""Progress bars of libraries are not written to a log, unless they are asked for."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-m", "obert", "check", "--config", "configs/smoke.yaml"]


def stderr(**environment):
    others = {name: value for name, value in os.environ.items() if not name.endswith("PROGRESS_BARS")}
    done = subprocess.run(COMMAND, env=others | environment, capture_output=True, text=True, check=True)
    assert "task movie_reviews" in done.stdout
    return done.stderr


def test_a_log_holds_none(root):
    assert "examples/s" not in stderr()


def test_who_asks_for_them_has_them(root):
    assert "examples/s" in stderr(HF_DATASETS_DISABLE_PROGRESS_BARS="0")
