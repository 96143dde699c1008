"""kill -9 at chosen and at random moments of every stage, then the same command: as if nothing had happened."""

import json
import random
import shutil
import time

import pytest
from killing import changes, chosen, killed_after, killed_before_change
from planned import at, made, make

from obert.experiment import folders
from obert.records.record import FILE_NAME, read_record

TASK, FEW, MANY = "movie_reviews", 3, 30
TIMES = {"started_at", "wall_time_seconds", "peak_memory_mb", "costs", "details", "environment"}


RUNS = {
    "quantize": lambda plan: plan.find("quantize", task=TASK, recipe="smoke_quantize@smoke_gradual"),
    "export": lambda plan: at(plan, plan.teacher(TASK), "export"),
    "benchmark": lambda plan: at(plan, plan.teacher(TASK), "benchmark"),
}


@pytest.fixture(params=RUNS)
def run(request, plan):
    """A run whose sources are made, and which is not."""
    planned = RUNS[request.param](plan)
    for source in planned.made_from:
        for earlier in source.made_from:
            made(earlier)
        made(source)
    shutil.rmtree(planned.folder, ignore_errors=True)
    planned.drop_checkpoints()
    return planned


@pytest.fixture
def expected(run):
    """What it leaves if nobody kills it, with how often it changes a file, and its seconds."""
    start = time.monotonic()
    count = changes(lambda: make(run), folders.RESULTS)
    seconds = time.monotonic() - start
    whole = results_of(run)
    shutil.rmtree(run.folder)
    return whole, count, seconds


def results_of(run):
    """All that is promised to be the same: the files, and the record without times; of timings, how many there are."""
    record = read_record(run.folder / FILE_NAME)
    said = record.model_dump(mode="json", exclude=TIMES)
    files = {str(p.relative_to(run.folder)): p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    del files[FILE_NAME]
    if run.key.stage == "benchmark":
        timed = json.loads(files.pop("latencies.json"))["engines"]
        scores = {name: score for name, score in said.pop("metrics").items() if name.endswith("accuracy")}
        return (
            said,
            scores,
            {engine: {model: len(of) for model, of in models.items()} for engine, models in timed.items()},
        )
    return said, files


def kill_and_go_on(run, expected, kills):
    """Kill a run again and again, each time from where the last kill left it, then let it end."""
    killed = 0
    for kill in kills:
        killed += kill(lambda: make(run))
        assert len(unfinished(run)) <= 1
        if (run.folder / FILE_NAME).exists():
            assert results_of(run) == expected
            (run.folder / FILE_NAME).unlink()  # as if it were outdated
    assert killed
    make(run)
    assert results_of(run) == expected
    assert unfinished(run) == [] and not run.checkpoints.exists()


def unfinished(run):
    return [p for p in run.folder.rglob("*") if p.name.endswith((".tmp", ".partial"))]


def test_a_run_that_is_killed_at_changes_of_files_ends_as_if_it_were_not(run, expected):
    whole, count, _ = expected
    moments = chosen(FEW, count)
    kills = [lambda command, n=n: killed_before_change(command, folders.RESULTS, n) for n in reversed(moments)]
    kill_and_go_on(run, whole, kills)


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_as_if_it_were_not(run, expected):
    whole, count, seconds = expected
    kills = [lambda command, n=n: killed_before_change(command, folders.RESULTS, n) for n in chosen(MANY, count)]
    draw = random.Random(0)
    times = [draw.uniform(0, seconds) for _ in range(MANY)]
    kills += [lambda command, s=s: killed_after(command, s) for s in times]
    kill_and_go_on(run, whole, kills)
