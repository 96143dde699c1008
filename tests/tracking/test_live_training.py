"""A stage that is killed while it trains: MLflow shows it, says that it was killed, and has one run in the end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME
from obert.tracking.store import HASH_TAG

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = 600
STAGE = """
import sys
from obert.commands.cli import main
from obert.tracking import live

live.PACE = {"delay": 0.0, "interval": 0.1, "share": 1.0, "niceness": 0}
sys.exit(main(["teacher", "--config", sys.argv[1]]))
"""


@pytest.fixture
def config(tmp_path, uri):
    """A teacher that takes a while, whose folder of results is a new one."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    content = {
        "name": "live",
        "description": "A run that takes long enough to be looked at.",
        "model": {"source": "tests/data/tiny_bert"},
        "tasks": {"movie_reviews": {"source": "tests/data/movie_reviews", "max_length": 32}},
        "threads": 1,
        "teacher": "smoke_finetune",
        "downstream": [{"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.8]}],
        "recipe_overrides": {
            "movie_reviews": {"smoke_finetune": {"training": {"epochs": STEPS / 6, "checkpoint_steps": 50}}}
        },
        "tracking_uri": uri,
    }
    (tmp_path / "live.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "live.yaml"


def start(config, *launcher):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    (config.parent / "stage.py").write_text(STAGE)
    command = [sys.executable, *launcher, str(config.parent / "stage.py"), str(config)]
    return subprocess.Popen(command, cwd=config.parent, env=environment, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def the_run(uri):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("live")
    runs = client.search_runs([found.experiment_id]) if found else []
    assert len(runs) <= 1
    return runs[0] if runs else None


def steps_of(uri, run):
    return [metric.step for metric in MlflowClient(uri).get_metric_history(run.info.run_id, "loss")]


def test_a_killed_teacher_goes_on_as_the_same_run_and_ends_as_its_record(config, uri):
    process = start(config)
    begun = wait_for(lambda: the_run(uri))
    assert begun.info.status == "RUNNING"
    wait_for(lambda: len(steps_of(uri, begun)) > 60)  # there is a checkpoint
    process.kill()
    process.wait()
    wait_for(lambda: the_run(uri).info.status == "KILLED")
    process = start(config)
    wait_for(lambda: the_run(uri).info.status == "RUNNING")
    assert process.wait(600) == 0
    run, folder = the_run(uri), next(config.parent.rglob(FILE_NAME)).parent
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    assert run.data.tags[HASH_TAG] == file_hash(folder / FILE_NAME)
    curves = pd.read_csv(folder / "curves.csv", dtype=str).astype(float)
    for name in ("loss", "learning_rate", "sparsity"):
        history = MlflowClient(uri).get_metric_history(run.info.run_id, name)
        logged = sorted((metric.step, metric.value) for metric in history)
        assert logged == list(zip(curves["step"], curves[name], strict=True))
    assert len(curves) == STEPS


def test_two_processes_are_one_run(config, uri):
    process = start(config, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    begun = wait_for(lambda: the_run(uri))
    assert process.wait(600) == 0
    run = the_run(uri)
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    assert sorted(steps_of(uri, run)) == list(range(1, STEPS + 1))
