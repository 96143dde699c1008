"""The grid of `configs/one_shot.yaml`: which runs there are, and that each is one job."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from obert.experiment.plan import Plan
from obert.foundation import registry

CONFIG = "configs/one_shot.yaml"
ALL_SPARSITIES = {0.5, 0.7, 0.8}
GRID = {
    ("one_shot_1024", "magnitude"): ALL_SPARSITIES,
    ("one_shot_1024", "obert"): ALL_SPARSITIES,
    ("one_shot_1024", "optimal_brain_compression"): {0.8},
    ("one_shot_1024", "sparsegpt"): ALL_SPARSITIES,
    ("one_shot_1024", "wanda"): ALL_SPARSITIES,
    ("one_shot_1024_uniform", "magnitude"): ALL_SPARSITIES,
}


@pytest.fixture
def plan(root):
    return Plan.load(CONFIG)


def test_every_method_has_its_sparsities_with_three_seeds_on_two_real_tasks(plan):
    runs = [run.key for run in plan.of_stage("downstream")]
    assert Counter((key.recipe, key.method, key.sparsity, key.task, key.seed) for key in runs) == Counter(
        (*of, sparsity, task, seed)
        for of, sparsities in GRID.items()
        for sparsity in sparsities
        for task in ("sst2", "stsb")
        for seed in (0, 1, 2)
    )
    assert Counter(run.key.stage for run in plan) == {"teacher": 2, "downstream": 96}


def test_methods_that_look_at_examples_look_at_as_many(plan):
    counts = {}
    for run in plan.of_stage("downstream"):
        method = registry.load("pruning", run.key.method)(**run.recipe.methods.get(run.key.method, {}))
        counts[run.key.method] = method.gradient_examples() + method.forward_examples()
        assert run.recipe.is_one_shot and run.recipe.start == "teacher"
    assert counts == {method: 0 if method == "magnitude" else 1024 for _, method in GRID}


def test_a_dry_run_has_a_job_for_each_run_and_for_the_tables(root, tmp_path):
    for part in ("Snakefile", "configs", "obert", "profiles", "workflow"):
        copy = shutil.copy if (root / part).is_file() else shutil.copytree
        copy(root / part, tmp_path / part)
    places = {"PYTHONPATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["snakemake", "-n", "--cores", "2", "--configfile", CONFIG],
        cwd=tmp_path, env=os.environ | places, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert jobs == {"teacher": "2", "downstream": "96", "tables": "1", "track": "1", "all": "1", "total": "101"}
