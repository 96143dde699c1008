"""Runs in MLflow while they are made: seen at once, marked when they are killed, continued, and finished as themselves.

What is told here is made up; `test_live_training.py` trains.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.foundation.files import file_hash
from obert.records.listening import Listener, listener
from obert.records.record import FILE_NAME, Score, now
from obert.tracking import live
from obert.tracking._live_worker import QUEUE, Inbox
from obert.tracking.mirror import mirror_run, synchronize
from obert.tracking.store import HASH_TAG
from obert.tracking.unfinished import mark_killed

ROOT = Path(__file__).parents[2]
AT_ONCE = {"delay": 0.0, "interval": 0.1, "share": 1.0, "niceness": 0}
# A process that makes a run, as far as MLflow can see, and never ends.
MAKER = """
import sys, time
from pathlib import Path
from test_live import AT_ONCE, lines, live, told

live.PACE, live.SECONDS = AT_ONCE, 0.0
told(Path(sys.argv[1]), sys.argv[2]).stepped(lines(1, int(sys.argv[3])))
time.sleep(600)
"""


def planned(runs, uri, exclusive=False):
    """What is planned of the run."""
    return SimpleNamespace(
        experiment=SimpleNamespace(tracking_uri=uri),
        folder=runs / record("teacher").key.path,
        config="configs/example.yaml",
        stage=SimpleNamespace(exclusive=exclusive),
    )


def told(runs, uri, **fields):
    """A run that has started and tells what there is to tell."""
    run = live.LiveRun(planned(runs, uri))
    run.started(record("teacher", started_at=now(), **fields))
    return run


def loss(step):
    return 1 / step


def lines(first, last):
    """What the Trainer logs of some steps."""
    return [
        {"step": s, "loss": loss(s), "learning_rate": 1e-5 * s, "sparsity": 0.1 * s} for s in range(first, last + 1)
    ]


def finish(runs, steps, accuracy=90.0, **fields):
    """The record of the run, as its stage would write it. Returns its folder."""
    made = record("teacher", accuracy, **{"started_at": now(), "wall_time_seconds": 3600.0, **fields})
    folder = runs / made.key.path
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{x['step']},{x['loss']!r},{x['learning_rate']!r},{x['sparsity']!r}" for x in lines(1, steps)]
    (folder / "curves.csv").write_text("\n".join(["step,loss,learning_rate,sparsity", *rows]) + "\n")
    return write_run(runs, made)


def runs_in(uri):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("example")
    return client.search_runs([found.experiment_id]) if found else []


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def seen(uri, status, steps=None):
    """The one run there is, once it has this status and a last step."""

    def look():
        found = runs_in(uri)
        assert len(found) <= 1
        if found and found[0].info.status == status and steps in (None, last_step(uri, found[0])):
            return found[0]
        return None

    return wait_for(look)


def last_step(uri, run):
    return max((m.step for m in MlflowClient(uri).get_metric_history(run.info.run_id, "loss")), default=0)


def history(uri, run, name="loss"):
    return [(m.step, m.value) for m in MlflowClient(uri).get_metric_history(run.info.run_id, name)]


def assert_finished(uri, folder, run, steps):
    """There is one run, and it is the record's."""
    (found,) = runs_in(uri)
    assert found.info.status == "FINISHED"
    assert found.info.run_id == run.info.run_id
    assert found.data.tags[HASH_TAG] == file_hash(folder / FILE_NAME)
    assert found.data.tags["status"] == "completed"
    assert found.data.metrics["accuracy"] == found.data.metrics["score"]
    expected = lines(1, steps)
    for name in ("loss", "learning_rate", "sparsity"):
        assert sorted(history(uri, found, name)) == [(line["step"], line[name]) for line in expected]
    files = {file.path for file in MlflowClient(uri).list_artifacts(found.info.run_id)}
    assert files == {FILE_NAME, "curves.csv"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(live, "PACE", AT_ONCE)
    monkeypatch.setattr(live, "SECONDS", 0.0)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_a_run_is_seen_while_it_is_made_and_the_record_finishes_it(uri, runs):
    run = told(runs, uri)
    seen(uri, "RUNNING")
    wait_for(lambda: runs_in(uri)[0].data.params.get("recipe.training.epochs") == "10.0")  # told after the run is made
    begun = seen(uri, "RUNNING")
    assert begun.info.run_name.startswith("dense teacher")
    assert begun.data.tags["status"] == "running" and HASH_TAG not in begun.data.tags
    run.stepped(lines(1, 5))
    seen(uri, "RUNNING", steps=5)
    run.stepped(lines(6, 9))
    run.evaluated({"accuracy": Score(value=90.0, count=4)}, "accuracy")
    wait_for(lambda: runs_in(uri)[0].data.metrics.get("score") == 90.0)
    run.stepped(lines(10, 12))
    run.end("FINISHED")
    assert synchronize(runs, uri) == 0  # there is no record yet
    folder = finish(runs, 20)
    assert mirror_run(folder, uri)
    assert_finished(uri, folder, begun, 20)
    assert history(uri, runs_in(uri)[0], "score") == [(0, 90.0)]
    assert not mirror_run(folder, uri)


def test_a_run_that_fails_says_so_and_is_continued_by_the_next_attempt(uri, runs):
    with pytest.raises(ZeroDivisionError), live.live(planned(runs, uri)):
        listener().started(record("teacher", started_at=now()))
        listener().stepped(lines(1, 5))
        begun = seen(uri, "RUNNING", steps=5)
        raise ZeroDivisionError
    assert seen(uri, "FAILED").info.run_id == begun.info.run_id
    run = told(runs, uri)
    seen(uri, "RUNNING")
    run.stepped(lines(3, 8))  # from a checkpoint on
    run.end("FINISHED")
    folder = finish(runs, 8)
    assert mirror_run(folder, uri)
    assert_finished(uri, folder, begun, 8)


def start_maker(runs, uri, steps):
    path = [ROOT, ROOT / "tests", Path(__file__).parent, *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.Popen([sys.executable, "-c", MAKER, str(runs), uri, str(steps)], env=environment)


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_killed_run_is_marked_at_once_and_goes_on_as_itself(uri, runs):
    maker = start_maker(runs, uri, 6)
    begun = seen(uri, "RUNNING", steps=6)
    maker.kill()
    maker.wait()
    killed = seen(uri, "KILLED")
    assert killed.info.run_id == begun.info.run_id
    run = told(runs, uri)
    seen(uri, "RUNNING")
    run.stepped(lines(4, 9))
    seen(uri, "RUNNING", steps=9)
    run.end("FINISHED")
    folder = finish(runs, 9)
    assert mirror_run(folder, uri)
    assert_finished(uri, folder, begun, 9)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_a_run_whose_machine_goes_down_is_marked_by_track_and_goes_on(uri, runs):
    maker = start_maker(runs, uri, 6)
    begun = seen(uri, "RUNNING", steps=6)
    assert mark_killed(runs, "example", uri) == 0  # it is alive
    for process in (*workers_of(maker), maker.pid):
        os.kill(process, signal.SIGKILL)
    maker.wait()
    assert seen(uri, "RUNNING")
    assert mark_killed(runs / "elsewhere", "example", uri) == 0  # of which nothing is known there
    assert mark_killed(runs, "example", uri) == 1
    assert mark_killed(runs, "example", uri) == 0
    seen(uri, "KILLED")
    run = told(runs, uri)
    assert seen(uri, "RUNNING").info.run_id == begun.info.run_id
    run.end("KILLED")


def test_figures_that_the_record_contradicts_do_not_stay(uri, runs):
    """MLflow takes nothing back, so the record has a run of its own."""
    run = told(runs, uri)
    run.stepped([{**line, "loss": 2.0} for line in lines(1, 3)])
    begun = seen(uri, "RUNNING", steps=3)
    run.end("FINISHED")
    folder = finish(runs, 5)
    assert mirror_run(folder, uri)
    (found,) = runs_in(uri)
    assert found.info.run_id != begun.info.run_id
    assert_finished(uri, folder, found, 5)


def test_a_run_of_other_code_is_not_continued(uri, runs):
    run = told(runs, uri, code_hash="1" * 16)
    old = seen(uri, "RUNNING")
    run.end("KILLED")
    seen(uri, "KILLED")
    run = told(runs, uri, code_hash="2" * 16)
    wait_for(lambda: len(runs_in(uri)) == 2)
    run.end("FINISHED")
    folder = finish(runs, 5, code_hash="2" * 16)
    assert mirror_run(folder, uri)
    (found,) = runs_in(uri)
    assert found.info.run_id != old.info.run_id


def test_the_mirror_leaves_a_rerun_alone(uri, runs):
    """Of a run that is complete, and is made again: the old record stays until there is a new one."""
    folder = finish(runs, 5, wall_time_seconds=0.0)
    mirror_run(folder, uri)
    (complete,) = runs_in(uri)
    run = told(runs, uri, code_hash="1" * 16)
    wait_for(lambda: len(runs_in(uri)) == 2)
    assert synchronize(runs, uri) == 0
    run.stepped(lines(1, 5))
    (rerun,) = [found for found in runs_in(uri) if found.info.run_id != complete.info.run_id]
    wait_for(lambda: last_step(uri, rerun) == 5)
    run.end("KILLED")
    assert synchronize(runs, uri) == 0
    assert {r.info.status for r in runs_in(uri)} == {"FINISHED", "KILLED"}
    folder = finish(runs, 5, accuracy=80.0, code_hash="1" * 16)
    assert synchronize(runs, uri) == 1
    assert_finished(uri, folder, rerun, 5)


def test_a_tracker_leaves_a_record_to_the_process_that_has_just_made_it(uri, runs):
    run = told(runs, uri)
    run.stepped(lines(1, 5))
    begun = seen(uri, "RUNNING", steps=5)
    folder = finish(runs, 5)
    assert synchronize(runs, uri) == 0
    run.end("FINISHED")
    assert mirror_run(folder, uri)
    assert_finished(uri, folder, begun, 5)


def test_of_two_processes_that_make_one_run_one_is_seen(uri, runs):
    first, second = told(runs, uri), None
    begun = seen(uri, "RUNNING")
    second = told(runs, uri)
    second.stepped(lines(1, 3))
    first.stepped(lines(1, 4))
    seen(uri, "RUNNING", steps=4)
    first.end("KILLED")
    second.stepped(lines(4, 6))
    assert seen(uri, "RUNNING", steps=6).info.run_id == begun.info.run_id
    second.end("KILLED")


@pytest.mark.parametrize("stopped", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_that_does_not_answer_holds_nothing_up(uri, runs, monkeypatch, stopped):
    monkeypatch.setattr(live, "END_SECONDS", 0.5)
    run = told(runs, uri)
    seen(uri, "RUNNING")
    run._worker.send_signal(stopped)
    started = time.monotonic()
    for step in range(2000):  # far more than a pipe holds
        run.stepped(lines(step + 1, step + 1))
    run.evaluated({"accuracy": Score(value=90.0, count=4)}, "accuracy")
    run.end("FINISHED")
    assert time.monotonic() - started < 60  # it would wait for ever
    folder = finish(runs, 5)
    assert mirror_run(folder, uri)
    assert len(runs_in(uri)) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "file:mlruns", "no-such-driver://host/database"])
def test_a_store_that_cannot_be_used_does_not_touch_the_run(address, runs):
    with live.live(planned(runs, address)):
        listener().started(record("teacher"))
        listener().stepped(lines(1, 5))
        listener().evaluated({"accuracy": Score(value=90.0, count=4)}, "accuracy")


def test_whatever_cannot_be_told_does_not_touch_the_run(uri, runs, monkeypatch):
    def fail(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr("subprocess.Popen", fail)
    run = told(runs, uri)
    run.stepped(lines(1, 5))
    run.end("FINISHED")
    assert runs_in(uri) == []


def test_one_of_several_processes_tells_and_none_that_measures_time(uri, runs, monkeypatch):
    with live.live(planned(runs, uri, exclusive=True)):
        assert type(listener()) is Listener
    with live.live(planned(runs, uri)):
        assert isinstance(listener(), live.LiveRun)
    monkeypatch.setenv("RANK", "1")
    with live.live(planned(runs, uri)):
        assert type(listener()) is Listener
    assert type(listener()) is Listener


def test_a_run_that_is_over_soon_does_not_cost_the_import_of_mlflow(uri, runs, monkeypatch):
    monkeypatch.setattr(live, "PACE", AT_ONCE | {"delay": 60.0})
    run = told(runs, uri)
    run.stepped(lines(1, 5))
    run.end("FAILED")
    assert runs_in(uri) == []


def test_steps_that_wait_are_thinned_out_evenly():
    messages = [{"delay": 0}, *({"steps": [[step, 0, 1.0, 1.0, 0.0]]} for step in range(10_000)), {"end": "FAILED"}]
    stream = io.BytesIO("".join(json.dumps(message) + "\n" for message in messages).encode())
    inbox = Inbox(stream)
    inbox.wait(10)
    assert inbox.end == "FAILED"
    steps = [step for step, *_ in inbox.take()[0]]
    assert QUEUE / 2 <= len(steps) <= QUEUE
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert steps[0] == 0 and steps[-1] > 9_900
