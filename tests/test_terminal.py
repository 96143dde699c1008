"""What Snakemake's terminal shows of runs: how far they are and what failed, and not its own lines for each job."""

import sys

import pytest
import yaml
from copied import copy_project
from test_workflow import run

LOG = "results/logs/diverging/teacher/movie_reviews/smoke_finetune/dense/seed0.log"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with an experiment of two runs, of which the first diverges."""
    copy = copy_project(tmp_path_factory.mktemp("project"))
    content = yaml.safe_load((copy / "configs/smoke.yaml").read_text())
    kept = {name: content[name] for name in ("description", "model", "seeds", "threads", "teacher")}
    kept |= {"name": "diverging", "tasks": {"movie_reviews": content["tasks"]["movie_reviews"]}, "tables": []}
    kept["downstream"] = [{"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "sparsities": [0.8]}]
    steep = {"training": {"learning_rate": {"initial": 1e30}}}
    kept["recipe_overrides"] = {"movie_reviews": {"smoke_finetune": steep}}
    (copy / "configs/diverging.yaml").write_text(yaml.safe_dump(kept))
    return copy


@pytest.fixture(scope="module")
def said(project):
    """What Snakemake prints, to no terminal."""
    done = run(project, "snakemake", "--cores", "1", "--configfile", "configs/diverging.yaml")
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_it_says_how_far_the_experiment_is(said):
    assert " 0 of 2 runs done, 2 waiting; about " in said
    assert " 0 of 2 runs done, 1 failed, 1 waiting; about " in said
    assert "\033[A" not in said, "no lines that are drawn anew"


def test_a_failed_run_has_its_last_words_and_its_log(said):
    (line,) = (line for line in said.splitlines() if "the loss is not finite at step " in line)
    assert line.startswith("    obert teacher: ")
    assert f"    log: {LOG}\n" in said


def test_snakemakes_own_lines_are_in_its_log(project, said):
    logs = sorted((project / ".snakemake/log").glob("*.snakemake.log"))
    assert str(logs[-1]) in said
    for of_its_own in ("rule teacher:", "python -m obert teacher", "    jobid: ", "RuleException"):
        assert of_its_own not in said, said
        assert of_its_own in logs[-1].read_text()


def test_status_says_the_same_from_elsewhere(project, said):
    done = run(project, sys.executable, "-m", "obert", "status", "--config", "configs/diverging.yaml")
    assert done.returncode == 0, done.stderr
    assert "experiment diverging: 0 of 2 runs done, 1 failed, 1 waiting" in done.stdout
    assert "the loss is not finite at step " in done.stdout and f"    log: {LOG}\n" in done.stdout


def test_a_dry_run_still_says_what_would_run_and_why(project, said):
    done = run(project, "snakemake", "--cores", "1", "--configfile", "configs/diverging.yaml", "-n")
    assert "rule teacher:" in done.stdout + done.stderr and "reason: " in done.stdout + done.stderr
