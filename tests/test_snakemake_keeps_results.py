"""Snakemake deletes what a failed job leaves. No job fails whose record is there."""

import shutil
from pathlib import Path

import pytest
import yaml
from copied import copy_project
from mlflow import MlflowClient
from test_workflow import run

from obert.records.record import read_record

FOLDER = Path("results/runs/one/teacher/movie_reviews/smoke_finetune/dense/seed0")
LOG = Path("results/logs/one/teacher/movie_reviews/smoke_finetune/dense/seed0.log")
# Python runs it at the start of each of its processes.
WITHOUT_DRIVER = "import sys; sys.modules['boto3'] = None\n"
ABORTS_AT_THE_END = "import atexit, os, sys\nif 'teacher' in sys.orig_argv: atexit.register(os.abort)\n"
FAILS_BEFORE_THE_RECORD = """
import os, sys
if 'teacher' in sys.orig_argv:
    from obert.records import recording
    def fail(*_): os.abort()
    recording.write_record = fail
"""


@pytest.fixture
def project(tmp_path, initialized):
    """A copy of the project with one run, whose files MLflow is to keep on S3."""
    copy = copy_project(tmp_path / "project")
    content = yaml.safe_load((copy / "configs/smoke.yaml").read_text())
    kept = {name: content[name] for name in ("description", "model", "seeds", "threads", "teacher")}
    tasks = {"movie_reviews": content["tasks"]["movie_reviews"]}
    kept |= {"name": "one", "tasks": tasks, "tracking_uri": "sqlite:///results/tracking/mlflow.db"}
    (copy / "configs/one.yaml").write_text(yaml.safe_dump(kept))
    (copy / "results/tracking").mkdir(parents=True)
    database = shutil.copy(initialized, copy / "results/tracking")
    MlflowClient(f"sqlite:///{database}").create_experiment("one", artifact_location="s3://bucket/one")
    return copy


def snakemake(project, at_start, *options):
    (project / "sitecustomize.py").write_text(WITHOUT_DRIVER + at_start)
    done = run(project, "snakemake", *options, "--cores", "1", "--configfile", "configs/one.yaml")
    return done.returncode, done.stdout + done.stderr


def test_an_artifact_store_without_its_driver_stops_all_before_the_first_job(project):
    status, said = snakemake(project, "")
    assert status != 0
    assert said.count("needs a Python package that is not installed") == 1 and "boto3" in said
    assert "Traceback" not in said
    assert not (project / "results/runs").exists()


def test_an_artifact_store_that_loses_its_driver_costs_no_model(project):
    target = (FOLDER / "metrics.json").as_posix()
    status, said = snakemake(project, "", target, "--no-hooks")  # as if it were lost after the preparation
    assert status == 0, said
    record = read_record(project / FOLDER / "metrics.json")
    assert (project / FOLDER / "model/model.safetensors").is_file()
    log = (project / LOG).read_text()
    assert "the run is complete, but not in MLflow" in log and "boto3" in log
    assert "`python -m obert track --config configs/one.yaml` does the rest" in log
    assert "Nothing to be done" in snakemake(project, "", target, "--no-hooks", "-n")[1]
    assert record.metrics and not list((project / "results/checkpoints").rglob("checkpoint-*"))


@pytest.mark.slow
def test_a_process_that_dies_after_its_record_costs_no_model(project):
    target = (FOLDER / "metrics.json").as_posix()
    status, said = snakemake(project, ABORTS_AT_THE_END, target, "--no-hooks")
    assert status == 0, said
    assert "The run is complete, though not all after it" in said
    assert read_record(project / FOLDER / "metrics.json").metrics
    assert (project / FOLDER / "model/model.safetensors").is_file()


@pytest.mark.slow
def test_a_process_that_dies_before_its_record_is_completed_without_training(project):
    target = (FOLDER / "metrics.json").as_posix()
    status, said = snakemake(project, FAILS_BEFORE_THE_RECORD, target, "--no-hooks")
    assert status != 0
    assert not (project / FOLDER / "model").exists()  # Snakemake has deleted it
    status, said = snakemake(project, "", target, "--no-hooks")
    assert status == 0, said
    log = (project / LOG).read_text()
    assert "resuming from" in log and "checkpoint-6" in log
    assert "6/6" not in log  # no progress bar of training
    assert read_record(project / FOLDER / "metrics.json").costs["optimizer_steps"] == 6
