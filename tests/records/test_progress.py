"""What a run tells while it is made: seen at once, gone when it is complete, and right about runs that were ended."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import psutil
import pytest
from killing import changes, killed_before_change, killed_by_itself

from obert.foundation.errors import UserError
from obert.records import progress
from obert.records.listening import Listener, listener, listening
from obert.records.progress import (
    FAILED,
    FILE_NAME,
    INTERRUPTED,
    SILENT,
    Progress,
    look,
    shown,
    wait_for_another,
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A planned run that is told of at once."""
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    stage, key = SimpleNamespace(exclusive=False), SimpleNamespace(path="downstream/x")
    return SimpleNamespace(checkpoints=tmp_path / "run", stage=stage, key=key)


def line(step):
    return {"step": step, "loss": 1 / step, "learning_rate": 1e-4, "sparsity": 0.5}


def seen_when(run, condition, seconds=20.0):
    """What is seen of a run as soon as a condition holds."""
    deadline = time.monotonic() + seconds
    while (seen := look(run.checkpoints)) is None or not condition(seen.progress):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return seen


def make(run, steps=3):
    with shown(run):
        listener().stepped([line(step) for step in range(1, steps)])
        time.sleep(0.02)
        listener().stepped([line(steps)])


def test_a_run_is_seen_while_it_is_made_and_leaves_nothing(run):
    assert look(run.checkpoints) is None
    with shown(run):
        begun = look(run.checkpoints)
        assert begun.alive and begun.progress.step is None
        listener().stepped([line(1), line(2)])
        time.sleep(0.05)
        listener().stepped([line(3), line(4)])
        seen = seen_when(run, lambda told: told.step == 4)
    told = seen.progress
    assert seen.alive and (told.loss, told.sparsity) == (0.25, 0.5)
    assert (told.host, told.pid, told.ended) == (platform.node(), os.getpid(), None)
    assert 0.02 < told.step_seconds < 1, "0.05 s for two steps"
    assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [{"pid": -1}, {"pid": 0}, {"created": float("nan")}, {"step_seconds": float("inf")}, {"started_at": "x"}]
)
def test_what_cannot_be_is_not_told(run, damage):
    """A file that was damaged, or edited."""
    with shown(run):
        path = run.checkpoints / FILE_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
        assert look(run.checkpoints) is None


def test_a_loss_that_is_no_number_is_told(run):
    with shown(run):
        listener().stepped([line(1) | {"loss": float("nan")}])
        assert seen_when(run, lambda told: told.step == 1).progress.loss is None


def test_who_listened_before_still_does(run):
    class Heard(Listener):
        def __init__(self):
            self.calls = []

        def started(self, record):
            self.calls.append("started")

        def stepped(self, lines):
            self.calls.append("stepped")

        def evaluated(self, metrics, primary):
            self.calls.append("evaluated")

    heard = Heard()
    with listening(heard), shown(run):
        listener().started(None)
        listener().stepped([line(1)])
        listener().evaluated({}, "accuracy")
    assert heard.calls == ["started", "stepped", "evaluated"]


@pytest.mark.parametrize(
    ("error", "ended", "message"),
    [
        (UserError("the loss is not finite"), FAILED, "the loss is not finite"),
        (ValueError("no"), FAILED, "ValueError: no"),
        (ConnectionError("http://me:secret@host/ is down"), FAILED, "ConnectionError: http://me:***@host/ is down"),
        (KeyboardInterrupt(), INTERRUPTED, "KeyboardInterrupt"),
    ],
)
def test_a_run_that_fails_says_why(run, error, ended, message):
    with pytest.raises(type(error)), shown(run):
        listener().stepped([line(7)])
        raise error
    seen = look(run.checkpoints)
    assert not seen.alive
    assert (seen.progress.ended, seen.progress.message, seen.progress.step) == (ended, message, 7)
    make(run)
    assert look(run.checkpoints) is None, "the next attempt has been complete"


def test_a_run_that_is_killed_is_told_from_one_that_is_made(run):
    def killed_when_it_has_told():
        with shown(run):
            listener().stepped([line(5)])
            seen_when(run, lambda told: told.step == 5)
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_by_itself(killed_when_it_has_told)
    seen = look(run.checkpoints)
    assert not seen.alive and (seen.progress.step, seen.progress.ended) == (5, None)


def test_wherever_it_is_killed_what_is_seen_is_whole(run):
    count = changes(lambda: make(run), run.checkpoints)
    assert count > 3
    for number in range(count):
        killed_before_change(lambda: make(run), run.checkpoints, number)
        seen = look(run.checkpoints)
        assert seen is None or not seen.alive
    make(run)
    assert not (run.checkpoints / FILE_NAME).exists()


def test_a_process_that_has_another_ones_number_is_not_taken_for_it(run):
    with shown(run):
        told = look(run.checkpoints).progress
        path = run.checkpoints / FILE_NAME
        path.write_text(told.model_copy(update={"created": told.created - 60}).model_dump_json())
        assert not look(run.checkpoints).alive


def test_on_another_machine_a_run_is_alive_as_long_as_its_file_changes(run):
    with shown(run):
        told = look(run.checkpoints).progress.model_copy(update={"host": "node7"})
    path = run.checkpoints / FILE_NAME
    path.write_text(told.model_dump_json())
    assert look(run.checkpoints).alive
    os.utime(path, (time.time() - SILENT - 1,) * 2)
    assert not look(run.checkpoints).alive


@pytest.fixture
def other(run):
    """Another process that makes the run."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    created = psutil.Process(process.pid).create_time()
    told = Progress(host=platform.node(), pid=process.pid, created=created, started_at=datetime.now(UTC))
    run.checkpoints.mkdir()
    (run.checkpoints / FILE_NAME).write_text(told.model_dump_json())
    yield process
    process.kill()
    process.wait()


def test_nobody_is_waited_for_where_nobody_is(run, other, capsys):
    other.kill()
    other.wait()
    assert not wait_for_another(run) and capsys.readouterr().out == ""
    (run.checkpoints / FILE_NAME).unlink()
    assert not wait_for_another(run)


@pytest.mark.parametrize("how", ["killed", "complete"])
def test_another_that_makes_the_run_is_waited_for(run, other, capsys, monkeypatch, how):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            other.kill() if how == "killed" else (run.checkpoints / FILE_NAME).unlink()

    monkeypatch.setattr(progress.time, "sleep", sleep)
    assert wait_for_another(run)
    assert len(waits) >= 3
    assert capsys.readouterr().out == f"process {other.pid} on {platform.node()} makes it already: waiting\n"


def test_the_first_of_several_processes_does_not_let_the_others_wait_long(run, other, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(progress, "SILENT", 0.1)
    with pytest.raises(UserError, match=rf"downstream/x: process {other.pid} on .* makes it already.*or end it"):
        wait_for_another(run)
    other.kill()
    assert not wait_for_another(run), "they make the run together"
    other.wait()


def test_of_several_processes_the_others_do_not_wait_for_their_own_first(run, other, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert not wait_for_another(run)


def test_what_is_damaged_or_of_another_version_is_passed_over(run):
    run.checkpoints.mkdir()
    for text in ("", "{", '{"host": "a"}'):
        (run.checkpoints / FILE_NAME).write_text(text)
        assert look(run.checkpoints) is None


def test_steps_are_not_written_one_by_one(run, monkeypatch):
    written = []
    monkeypatch.setattr(progress, "write_text", lambda *_: written.append(1))
    monkeypatch.setattr(progress, "SECONDS", 60.0)
    with shown(run):
        for step in range(1, 1000):
            listener().stepped([line(step)])
    assert len(written) == 1, "when it began"


def test_a_folder_that_cannot_be_written_does_not_touch_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with shown(SimpleNamespace(checkpoints=tmp_path / "file" / "run", stage=SimpleNamespace(exclusive=True))):
        listener().stepped([line(1)])
