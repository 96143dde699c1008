"""Each stage under torchrun, two processes on gloo: what one process makes, bit for bit; and processes that end early.

As docs/explanation/reproducibility.md promises: without dropout, where a step accumulates over two minibatches, which
the two processes share.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from obert.records.record import read_record

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each test starts up to eight processes that import torch
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
TASK = "movie_reviews"
ACCUMULATED = {
    TASK: ("smoke_finetune", "smoke_gradual", "smoke_transfer", "smoke_quantize"),
    "mlm": ("smoke_upstream", "smoke_masked_language_model"),
}
STAGES = {
    "teacher": ("--task", TASK),
    "upstream_teacher": (),
    "upstream": ("--method", "obert"),
    "downstream": ("--task", TASK, "--recipe", "smoke_gradual", "--method", "obert"),
    "transfer": ("--task", TASK, "--recipe", "smoke_transfer@smoke_upstream", "--method", "obert"),
}
NEEDED = {"downstream": ("teacher",), "upstream": ("upstream_teacher",), "transfer": ("teacher", "upstream")}


@dataclass(frozen=True)
class Project:
    """A folder with the smoke experiment, without dropout, where each step accumulates over two minibatches."""

    folder: Path

    def started(self, stage: str, *launcher: str) -> subprocess.Popen:
        command = [sys.executable, "-m", *launcher, "obert", stage, "--config", "configs/smoke.yaml", *STAGES[stage]]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environment, **pipes)

    def run(self, stage: str, *launcher: str) -> str:
        process = self.started(stage, *launcher)
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
        return output

    def made(self, stage: str) -> Path:
        """The folder of a stage's run, made alone, with what it starts from."""
        for source in NEEDED.get(stage, ()):
            self.made(source)
        if not self._runs(stage):
            self.run(stage)
        return self.found(stage)

    def found(self, stage: str) -> Path:
        """The folder of a stage's only run."""
        (folder,) = self._runs(stage)
        return folder

    def _runs(self, stage: str) -> list[Path]:
        return [path.parent for path in (self.folder / "results/runs/smoke" / stage).glob("**/metrics.json")]

    def copy_without(self, stage: str, folder: Path) -> "Project":
        shutil.copytree(self.folder, folder)
        shutil.rmtree(folder / "results/runs/smoke" / stage, ignore_errors=True)
        return Project(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The project in which each stage runs in one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("configs", "tests/data"):
        shutil.copytree(ROOT / name, folder / name)
    settings = folder / "tests/data/tiny_bert/config.json"
    settings.write_text(settings.read_text().replace('dropout_prob": 0.1', 'dropout_prob": 0.0'))
    experiment = folder / "configs/smoke.yaml"
    content = yaml.safe_load(experiment.read_text())
    halves = {"training": {"gradient_accumulation": 2}}
    content["recipe_overrides"] = {
        task: {name: copy.deepcopy(halves) for name in names} for task, names in ACCUMULATED.items()
    }
    for settings in content["recipe_overrides"]["mlm"].values():
        settings["training"]["epochs"] = 0.9  # its last steps would be of one minibatch
    experiment.write_text(yaml.safe_dump(content))
    return Project(folder)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_make_what_one_makes(alone, tmp_path, stage):
    expected = alone.made(stage)
    both = alone.copy_without(stage, tmp_path / "both")
    said = both.run(stage, *TORCHRUN)
    assert sum(line.startswith(f"{stage}/") for line in said.splitlines()) == 1  # one of them makes the record
    found = both.found(stage)
    weights = load_file(expected / "model/model.safetensors")
    for name, value in load_file(found / "model/model.safetensors").items():
        assert torch.equal(value, weights[name]), name
    assert (found / "curves.csv").read_text() == (expected / "curves.csv").read_text()
    records = [read_record(folder / "metrics.json") for folder in (found, expected)]
    assert records[0].metrics == records[1].metrics
    assert records[0].costs["optimizer_steps"] == records[1].costs["optimizer_steps"]


def told(errors: str) -> list[str]:
    """The lines that are the harness's own message."""
    return [line for line in errors.splitlines() if re.match("obert [a-z_]+: ", line)]


def test_a_mistake_that_all_make_is_told_once(alone, tmp_path):
    project = alone.copy_without("teacher", tmp_path / "odd")
    experiment = project.folder / "configs/smoke.yaml"
    content = yaml.safe_load(experiment.read_text())
    content["recipe_overrides"][TASK]["smoke_finetune"]["training"]["gradient_accumulation"] = 3
    experiment.write_text(yaml.safe_dump(content))
    process = project.started("teacher", *TORCHRUN)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    (message,) = told(errors)
    assert "2 processes cannot share a batch of 16 x 3" in message
    assert "obert/commands/cli.py" not in errors  # no traceback


def test_a_process_that_is_killed_ends_the_other(alone, tmp_path):
    project = alone.copy_without("teacher", tmp_path / "killed")
    experiment = project.folder / "configs/smoke.yaml"
    content = yaml.safe_load(experiment.read_text())
    content["recipe_overrides"][TASK]["smoke_finetune"]["training"]["epochs"] = 2000  # it would train for minutes
    content["recipe_overrides"][TASK]["smoke_finetune"]["training"]["checkpoint_steps"] = 5
    experiment.write_text(yaml.safe_dump(content))
    process = project.started("teacher", *TORCHRUN)
    deadline = time.monotonic() + 300
    while not list(project.folder.glob("results/**/checkpoint-*/complete.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    workers = psutil.Process(process.pid).children()
    killed = next(w for w in workers if w.environ()["RANK"] == "1")
    killed.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert all(not worker.is_running() for worker in workers)
    assert len(told(errors)) <= 1  # torchrun may end the other before it has noticed, and tells that itself
    assert all("another process of this run has ended" in message for message in told(errors))
    assert "obert/commands/cli.py" not in errors
    assert "SIGKILL" in errors
