"""Trials on one storage: each once, whatever happens to the workers; seeds that never repeat a draw."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from obert.experiment import folders
from obert.foundation.errors import UserError
from obert.sweeps.search import load_sweep
from obert.sweeps.trials import ATTEMPTS, Trials

ROOT = Path(__file__).parents[2]
M, DAMPENING = "methods.obert.num_gradients", "methods.obert.dampening"
GRID = {M: {"values": [4, 8, 16]}, DAMPENING: {"values": [1e-3, 1e-5, 1e-7, 1e-9]}}
RANGES = {M: {"low": 1, "high": 64}, DAMPENING: {"low": 1e-9, "high": 1e-3, "log": True}}
WORKER = """
import json, sys, time
from pathlib import Path
from obert.experiment import folders
from obert.sweeps.search import load_sweep
from obert.sweeps.trials import Trials

sweep, folder, worker = sys.argv[1:]
folders.RESULTS = Path(folder)

def evaluate(values):
    with (folders.RESULTS / f"started{worker}").open("a") as file:
        file.write(json.dumps(list(values.values())) + "\\n")
    time.sleep(0.3)
    yield [{"score": 50 - values["methods.obert.num_gradients"] / 1e3 + values["methods.obert.dampening"]}]

with Trials(load_sweep(sweep), int(worker)) as trials:
    trials.work(evaluate)
"""


@pytest.fixture
def sweep_file(root, tmp_path, monkeypatch):
    """Writes a sweep like the smoke one, and keeps results out of the project."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")

    def write(**changes) -> Path:
        content = yaml.safe_load(Path("configs/sweeps/smoke.yaml").read_text(encoding="utf-8")) | {"space": GRID}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
        return path

    return write


def score(values):
    """An evaluation that costs nothing."""
    yield [{"score": 50 - values[M] / 1e3 + values[DAMPENING]}]


def worked(path, evaluate=score, worker=0):
    """The outcomes after a worker has done what there is to do."""
    with Trials(load_sweep(path), worker) as trials:
        trials.work(evaluate)
        return trials.outcomes()


def points(outcomes):
    return sorted(tuple(outcome.parameters.values()) for outcome in outcomes)


def product():
    return sorted((m, dampening) for m in GRID[M]["values"] for dampening in GRID[DAMPENING]["values"])


def start(path, folder, worker):
    """A worker in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", WORKER, str(path), str(folder), str(worker)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def started(folder, worker):
    file = folder / f"started{worker}"
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []


def ended_well(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()[-2000:]


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def each_point_once_although_one_is_killed(path, folder):
    """Two workers on a grid; one is killed in the middle of its second trial, and the other does that one too."""
    first, second = (start(path, folder, worker) for worker in (0, 1))
    wait_for(lambda: len(started(folder, 0)) >= 2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    lost = started(folder, 0)[-1]
    ended_well(second)
    with Trials(load_sweep(path), 2) as trials:
        outcomes = trials.outcomes()
        assert points(outcomes) == product()
        assert {outcome.state for outcome in outcomes} == {"complete"}
    everything = started(folder, 0) + started(folder, 1)
    assert everything.count(lost) == 2 and len(everything) == len(product()) + 1
    assert lost in started(folder, 1)


def test_two_workers_try_each_point_of_a_grid_once(sweep_file):
    path, folder = sweep_file(), folders.RESULTS
    folder.mkdir()
    ended_well(*(start(path, folder, worker) for worker in (0, 1)))
    assert sorted(started(folder, 0) + started(folder, 1)) == product()
    assert started(folder, 0) and started(folder, 1)
    outcomes = worked(path, evaluate=None)  # nothing is left to be evaluated
    assert points(outcomes) == product()
    best = max(outcomes, key=lambda outcome: outcome.objective)
    assert best.parameters == {M: 4, DAMPENING: 1e-3}


def test_a_killed_workers_trial_is_done_by_another_and_nothing_twice(sweep_file):
    folders.RESULTS.mkdir()
    each_point_once_although_one_is_killed(sweep_file(), folders.RESULTS)


def test_when_all_are_killed_the_next_goes_on(sweep_file):
    path, folder = sweep_file(), folders.RESULTS
    folder.mkdir()
    workers = [start(path, folder, worker) for worker in (0, 1)]
    wait_for(lambda: len(started(folder, 0)) >= 2 and started(folder, 1))
    for process in workers:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = started(folder, 0) + started(folder, 1)
    assert len(before) < len(product())
    ended_well(start(path, folder, 0))  # the same number as one that died
    assert points(worked(path, evaluate=None)) == product()
    after = (started(folder, 0) + started(folder, 1))[len(before) :]
    assert len(after) + len(before) <= len(product()) + 2  # the two that were running


def test_trials_of_dead_workers_keep_their_point(sweep_file):
    """Trials that were asked for by a process that is gone, one of them before it gave a number."""
    path = sweep_file()
    with Trials(load_sweep(path), 0) as trials:
        trials.study.ask()
        trials.study.ask().set_user_attr("worker", 7)
    outcomes = worked(path)
    assert points(outcomes) == product()
    assert [outcome.number for outcome in outcomes] == list(range(2, len(product()) + 2))


def test_a_trial_that_no_worker_survives_is_left(sweep_file):
    path = sweep_file()

    def deadly(values):
        if values == {M: 4, DAMPENING: 1e-5}:
            raise KeyboardInterrupt
        return score(values)

    for _ in range(ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            worked(path, deadly)
    outcomes = worked(path, deadly)
    assert points(outcomes) == product()
    (failed,) = (outcome for outcome in outcomes if outcome.objective is None)
    assert (failed.state, failed.error) == ("failed", f"its worker died {ATTEMPTS} times")


def test_a_users_mistake_fails_its_trial_alone(sweep_file):
    def picky(values):
        if values[DAMPENING] == 1e-9:
            raise UserError("raise the dampening")
        return score(values)

    outcomes = worked(sweep_file(), picky)
    assert points(outcomes) == product()
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    assert {(o.parameters[DAMPENING], o.error, o.objective) for o in failed} == {(1e-9, "raise the dampening", None)}
    assert worked(sweep_file(), evaluate=None) == outcomes  # and is not tried again


def test_tpe_is_seeded_with_seed_and_trial(sweep_file):
    """The first trials, which are random, are those of Optuna's own sampler with the sweep's seed plus their number."""
    outcomes = worked(sweep_file(space=RANGES, sampler="tpe", trials=6, seed=41))
    assert len({tuple(outcome.parameters.values()) for outcome in outcomes}) == 6
    for number in range(5):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=41 + number))
        trial = study.ask()
        expected = {M: trial.suggest_int(M, 1, 64), DAMPENING: trial.suggest_float(DAMPENING, 1e-9, 1e-3, log=True)}
        assert outcomes[number].parameters == expected


@pytest.mark.parametrize("sampler", [{"sampler": "grid"}, {"sampler": "tpe", "trials": 9}])
def test_a_key_is_drawn_only_where_it_means_something(sweep_file, sampler):
    def unconditional(values):
        yield [{"score": 50 - values[M] / 1e3 + values.get(DAMPENING, 0)}]

    space = {M: {"values": [4, 8]}, DAMPENING: {"values": [1e-3, 1e-5], "unless": {M: 4}}}
    path = sweep_file(space=space, **sampler)
    outcomes = worked(path, unconditional)
    assert len(outcomes) == {"grid": 3, "tpe": 9}[sampler["sampler"]]
    assert {outcome.parameters[M] for outcome in outcomes} == {4, 8}
    assert all((DAMPENING in outcome.parameters) == (outcome.parameters[M] == 8) for outcome in outcomes)
    with Trials(load_sweep(path), 0) as trials:
        trials.importances()  # of keys that only some trials have


def test_a_sweep_in_two_sessions_is_the_sweep_in_one(sweep_file):
    """Where a seeded sampler that is made anew would draw the first session's trials again."""
    options = {"space": RANGES, "sampler": "tpe"}
    worked(sweep_file(**options, trials=4))
    two_sessions = worked(sweep_file(**options, trials=9))
    shutil.rmtree(folders.RESULTS)
    one_session = worked(sweep_file(**options, trials=9))
    assert two_sessions == one_session
    assert len({tuple(outcome.parameters.values()) for outcome in one_session}) == 9


def test_a_trial_behind_at_the_highest_sparsity_ends_there(sweep_file):
    seen = []

    def two_levels(values):
        for level in ("high", "low"):
            seen.append(level)
            yield [{"score": 50 - values[M]}]

    outcomes = worked(sweep_file(stop_early=True), two_levels)
    states = [outcome.state for outcome in outcomes]
    assert states[:5] == ["complete"] * 5 and states[-1] == "stopped early"  # most gradients, lowest score
    assert seen.count("high") == 12 and seen.count("low") == states.count("complete")
    assert {len(outcome.runs) for outcome in outcomes if outcome.state == "stopped early"} == {1}


def test_two_workers_of_one_number_are_refused(sweep_file):
    search = load_sweep(sweep_file())
    with Trials(search, 3), pytest.raises(UserError, match="worker 3 of sweep 'smoke' is running already"):
        Trials(search, 3)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://127.0.0.1:9/none?connect_timeout=2", "sqlite:////nowhere/at/all.db", "nonsense"]
)
def test_a_database_that_cannot_be_used_is_named(sweep_file, url):
    with pytest.raises(UserError, match="storage: the database cannot be used") as caught:
        Trials(load_sweep(sweep_file(storage=url)), 0)
    assert "Is the server running" in str(caught.value)


@pytest.mark.slow
def test_workers_on_postgresql(sweep_file, postgresql, monkeypatch):
    path, folder = sweep_file(storage=postgresql), folders.RESULTS
    folder.mkdir()
    ended_well(*(start(path, folder, worker) for worker in (0, 1)))
    assert sorted(started(folder, 0) + started(folder, 1)) == product()
    assert points(worked(path, evaluate=None)) == product()


@pytest.mark.slow
def test_a_killed_worker_on_postgresql(sweep_file, postgresql):
    """The database knows by its heartbeat that a worker is gone: after a minute and a half."""
    folders.RESULTS.mkdir()
    each_point_once_although_one_is_killed(sweep_file(storage=postgresql), folders.RESULTS)
