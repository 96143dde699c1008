"""The smoke experiment with its teachers, and runs that are interrupted."""

from contextlib import contextmanager

import pytest
from planned import made, results_in

from obert.experiment.plan import Plan
from obert.training.trainer import LossProgress


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder for results of the module's own."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def plan(root, monkeypatch, results):
    """The plan of the smoke experiment, with its teachers trained."""
    results_in(results, monkeypatch)
    loaded = Plan.load("configs/smoke.yaml")
    for teacher in loaded.of_stage("teacher"):
        made(teacher)
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
