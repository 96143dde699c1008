"""The smoke experiment with its teachers, and runs that are interrupted."""

from contextlib import contextmanager

import pytest

from obert.experiment.checks import load_experiment
from obert.experiment.folders import run_folder
from obert.experiment.plan import teacher_key
from obert.stages import teacher
from obert.training.trainer import LossProgress


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder for results of the module's own."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def experiment(root, monkeypatch, results):
    """The smoke experiment with its teachers trained."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", results)
    monkeypatch.setattr("obert.records.run.environment", dict)  # asking the CPU for its name takes a second
    loaded = load_experiment("configs/smoke.yaml")
    for task in loaded.tasks:
        key = teacher_key(loaded, task)
        if not (run_folder(loaded, key) / "metrics.json").exists():
            teacher.run(loaded, key)
    return loaded


class Interrupted(Exception):
    """As a signal would."""


@pytest.fixture
def interrupted_at(monkeypatch):
    """A block in which training must end with an interruption after an optimiser step."""

    @contextmanager
    def block(step):
        def interrupt(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(LossProgress, "on_step_end", interrupt)
            with pytest.raises(Interrupted):
                yield

    return block
