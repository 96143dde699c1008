"""What `obert status` and the terminal say, of runs that are pretended."""

import io
import json
import os
import platform
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import yaml
from planned import made_as

from obert.commands.cli import main
from obert.commands.following import Follower
from obert.commands.status import Watch
from obert.experiment.plan import Plan
from obert.experiment.sizes import DataSize, Sizes
from obert.records.progress import FILE_NAME, Progress, look

TASK = "movie_reviews"
DOWNSTREAM = [
    {"recipes": ["smoke_gradual"], "methods": ["obert"], "tasks": [TASK], "sparsities": [0.75, 0.8], "seeds": [0, 1, 2]}
]
AGE = timedelta(minutes=12)
BAR = " 10%|#         | 3/30 [00:01<00:09]\r 20%|##        | 6/30 [00:02<00:08]\r"


@pytest.fixture
def config(root, tmp_path, monkeypatch):
    """An experiment of one teacher and six runs, in an empty folder."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    for section in ("upstream", "quantize", "benchmark", "sweeps"):
        content.pop(section, None)
    content |= {"downstream": DOWNSTREAM, "tasks": {TASK: content["tasks"][TASK]}, "recipe_overrides": {}}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def finish(run, seconds, **fields):
    """Write the record of a run that took so long; of 96 features, in batches of 16."""
    made = {
        **made_as(run),
        "wall_time_seconds": seconds,
        "peak_memory_mb": 500.0,
        "environment": {"gpu": None},
        "costs": {"optimizer_steps": 12},
        "data": {"features": {"train": 96}},
        **fields,
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.json").write_text(json.dumps(made))


def tell(run, **fields):
    """Write what this process tells of a run."""
    process = psutil.Process()
    told = {"host": platform.node(), "pid": os.getpid(), "created": process.create_time()}
    told["started_at"] = datetime.now(UTC) - AGE
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    (run.checkpoints / FILE_NAME).write_text(Progress(**{**told, **fields}).model_dump_json())


def log(run, text):
    path = Path(str(run.folder).replace("/runs/", "/logs/") + ".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def runs(config):
    """By sparsity and seed: one that is done, one that is made, one that failed, one that was killed, one that was made
    to another specification, and one that waits."""
    plan = Plan.load(config)
    found = {(s, k): plan.find("downstream", sparsity=s, seed=k) for s in (0.75, 0.8) for k in (0, 1, 2)}
    finish(plan.teacher(TASK), 40.0)
    finish(found[0.75, 0], 100.0)
    tell(found[0.75, 1], step=5, loss=0.25, sparsity=0.4, step_seconds=6.0)
    tell(found[0.75, 2], step=3, ended="failed", message="the loss is not finite at step 3")
    tell(found[0.8, 0], step=9, pid=2**22 + 1)
    checkpoint = found[0.8, 0].checkpoints / "checkpoint-8"
    checkpoint.mkdir()
    (checkpoint / "complete.json").write_text("{}")
    (found[0.8, 0].checkpoints / "checkpoint-9").mkdir()  # not finished
    finish(found[0.8, 1], 100.0, spec_hash="0" * 64)
    return found


def said(capsys, *arguments):
    assert main(["status", *arguments]) == 0
    return capsys.readouterr().out


def total(config):
    return round(6 * Plan.load(config).find("downstream", sparsity=0.75, seed=0).recipe.training.epochs)


def test_every_state_is_told(config, runs, capsys):
    failed = log(runs[0.75, 2], "something\n")
    text = said(capsys, "--config", config, "--cores", "1")
    steps = total(config)
    # The one that is made by its own pace; the others as long as the one that is done.
    left = f"{round((4 * 100 + 6 * (steps - 5)) / 60)} min"
    assert text.startswith(
        f"experiment smoke: 2 of 7 runs done, 1 running, 1 failed, 1 stopped, 1 outdated, 1 waiting; about {left} left "
        "on 1 core\n"
    )
    rows = [line.split() for line in text.splitlines() if line.startswith(("teacher ", "downstream "))]
    assert rows == [["teacher", "1"], ["downstream", "1", "1", "1", "1", "1", "1"]]
    since = look(runs[0.75, 1].checkpoints).progress.started_at.astimezone()
    assert (
        f"running:\n  {runs[0.75, 1].key.path}\n    step 5 of {steps}, loss 0.2500, sparsity 0.400; since "
        f"{since:%H:%M} (12 min) on {platform.node()}, about {6 * (steps - 5)} s left\n"
    ) in text
    assert (
        f"failed:\n  {runs[0.75, 2].key.path}\n    the loss is not finite at step 3, at step 3 of {steps}\n"
        f"    log: {failed}\n    the same command starts it anew\n"
    ) in text
    assert f"stopped:\n  {runs[0.8, 0].key.path}\n    its process on {platform.node()} has gone" in text
    assert "log: none, it was made by hand\n    the same command goes on from step 8" in text


def test_cores_share_what_is_left(config, runs, capsys):
    one, two = (said(capsys, "--config", config, "--cores", n).partition("about ")[2] for n in ("1", "2"))
    assert float(two.split()[0]) == pytest.approx(float(one.split()[0]) / 2, abs=1)


def test_a_stated_rate_is_a_rough_guess_until_a_run_is_done(config, capsys):
    plan = Plan.load(config)
    sizes, run = Sizes(), plan.teacher(TASK)
    sizes.add_data(run, DataSize(train=96, validation=48, sequences=1, tokens=20.0, longest=32))
    sizes.save(plan.experiment)
    text = said(capsys, "--config", config, "--cores", "2")
    assert re.match(r".*7 waiting; about \S+ \w+ left on 2 cores \(a rough guess until a run is done\)\n", text)
    finish(run, 40.0)
    assert "rough guess" not in said(capsys, "--config", config, "--cores", "2")


def test_nothing_is_made_up_where_nothing_is_known(config, capsys):
    text = said(capsys, "--config", config)
    assert "0 of 7 runs done, 7 waiting; time left not known yet" in text


def test_an_experiment_that_is_done_says_so(config, capsys):
    for run in Plan.load(config):
        finish(run, 10.0)
    assert said(capsys, "--config", config).startswith("experiment smoke: 7 of 7 runs done\n")


def test_what_snakemake_makes_again_is_not_done(config, capsys):
    """The teacher's code has changed, and all others are made from it."""
    plan = Plan.load(config)
    for run in plan:
        finish(run, 100.0, code_hash="0" * 16 if run is plan.teacher(TASK) else run.code_hash)
    text = said(capsys, "--config", config, "--cores", "1")
    assert text.startswith("experiment smoke: 0 of 7 runs done, 7 outdated; about 12 min left on 1 core\n")


def test_a_run_that_is_made_again_is_running(config, runs, capsys):
    """By hand, while the record of the last time is there."""
    tell(runs[0.75, 0])
    text = said(capsys, "--config", config)
    assert "1 of 7 runs done, 2 running" in text
    assert "preparing, or between steps; since" in text


def test_what_was_left_behind_by_a_run_that_is_done_is_not_told(config, runs, capsys):
    """Killed between its record and the end of its process."""
    tell(runs[0.75, 0], step=12, pid=2**22 + 1)
    assert "2 of 7 runs done, 1 running, 1 failed, 1 stopped" in said(capsys, "--config", config)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_there_are_plain_lines(config, runs):
    stream = io.StringIO()
    follower = Follower(Watch(Plan.load(config), cores=2), stream)
    follower.start()
    while not stream.getvalue():
        time.sleep(0.01)
    finish(runs[0.75, 1], 100.0)
    tell(runs[0.75, 1], step=6, loss=0.2, sparsity=0.4)
    follower.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2, "at the start and in the end"
    for line in lines:
        assert "2 of 7 runs done, 1 running, 1 failed" in line and f"{runs[0.75, 1].key.path}: step " in line
        assert "\r" not in line and "\033" not in line


def test_a_terminal_has_lines_that_are_drawn_anew(config, runs, monkeypatch):
    monkeypatch.setattr("obert.commands.following.DRAWN", 0.01)
    monkeypatch.setattr("obert.commands.following.SHARE", 1e9)
    stream = Terminal()
    follower = Follower(Watch(Plan.load(config), cores=2), stream)
    follower.start()
    deadline = time.monotonic() + 20
    while "step 5 of" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    follower.say("a word")
    follower.end()
    drawn = stream.getvalue()
    assert " 29 %|" in drawn and "step 5 of" in drawn and "\r" in drawn
    assert "a word\n" in drawn
    assert drawn.splitlines()[-1].count("2 of 7 runs done") == 1


def test_nobody_who_reads_is_no_failure(config, runs):
    stream = io.StringIO()
    follower = Follower(Watch(Plan.load(config), cores=2), stream)
    follower.start()
    stream.close()
    follower.say("a word")
    follower.end()


def test_a_job_that_failed_is_told_by_its_log(config, tmp_path):
    path = tmp_path / "job.log"
    path.write_text(f"{BAR}\nobert downstream: the loss is not finite at step 3\n")
    stream = io.StringIO()
    Follower(Watch(Plan.load(config), cores=1), stream).failed("downstream", [str(path)])
    assert stream.getvalue() == (
        f"downstream failed\n    obert downstream: the loss is not finite at step 3\n    log: {path}\n"
    )
