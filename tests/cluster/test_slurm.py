"""profiles/slurm on a real SLURM of one node: jobs that go well, and jobs that are ended.

It needs Debian's packages (see slurm.py), root, and snakemake-executor-plugin-slurm, and takes a quarter of an hour.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import slurm
import yaml

from obert.experiment.plan import Plan
from obert.records.record import Record, read_records

pytestmark = pytest.mark.slow
PLUGIN = "snakemake_executor_plugin_slurm"
ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "configs", "obert", "profiles", "workflow", "tests/data")
# Every stage, once; exports and benchmarks are of two models.
EVERY_STAGE = {
    "upstream": {
        "options": {"source": "tests/data/mlm", "max_length": 32},
        "teacher": "smoke_masked_language_model",
        "grid": [{"recipes": ["smoke_upstream"], "methods": ["obert"], "sparsities": [0.8]}],
        "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"]}],
    },
    "tasks": {"movie_reviews": {"source": "tests/data/movie_reviews", "max_length": 32}},
    "downstream": [{"recipes": ["smoke_gradual"], "methods": ["obert"], "sparsities": [0.8]}],
    "quantize": [{"recipe": "smoke_quantize", "models": ["smoke_gradual"]}],
    "benchmark": {
        "recipes": ["smoke_quantize"],
        "engines": ["onnxruntime"],
        **{"batch_size": 2, "sequence_length": 16, "threads": 1, "warmup": 1, "iterations": 5},
    },
    "sweeps": [],
}
METHOD = '''
"""{what}"""

import time
from pathlib import Path

from obert.pruning import Method


class {name}(Method):
    def score(self, context):
        {before}
        return {{name: weight.abs() for name, weight in context.weights.items()}}
'''
# Not before the second event, when there are checkpoints.
HANG = """marker = Path("results/{name}")
        if not marker.exists() and not all(mask.all() for mask in context.masks.values()):
            marker.touch()
            time.sleep(3600)"""
METHODS = {
    "hungry": METHOD.format(what="Takes 2 GB that it does not tell of.", name="Hungry", before="b'x' * 2_000_000_000"),
    "too_slow": METHOD.format(what="Hangs once.", name="TooSlow", before=HANG.format(name="too_slow")),
    "unwanted": METHOD.format(what="Hangs once.", name="Unwanted", before=HANG.format(name="unwanted")),
}
TROUBLED = {
    "tasks": EVERY_STAGE["tasks"],
    "downstream": [{"recipes": ["smoke_gradual"], "methods": list(METHODS), "sparsities": [0.8]}],
    "recipe_overrides": {"movie_reviews": {"smoke_gradual": {"training": {"checkpoint_steps": 1}}}},
    "extensions": "own",
    "tables": ["leaderboard"],
    "sweeps": [],
}


@pytest.fixture(scope="module")
def cluster():
    """A running SLURM."""
    reason = slurm.missing()
    if reason is None and importlib.util.find_spec(PLUGIN) is None:
        reason = "snakemake-executor-plugin-slurm is not installed"
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm.slurm(Path(folder)) as running:
        yield running


def project(folder: Path, changes: dict, without: tuple[str, ...] = ()) -> Path:
    """A copy of the project whose smoke experiment is changed."""
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        copy(source, folder / part)
    config = folder / "configs/smoke.yaml"
    content = {**yaml.safe_load(config.read_text()), **changes}
    config.write_text(yaml.safe_dump({name: value for name, value in content.items() if name not in without}))
    if "extensions" in changes:
        (folder / "own/pruning").mkdir(parents=True)
        for name, text in METHODS.items():
            (folder / f"own/pruning/{name}.py").write_text(text)
    return folder


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    variables = environment | {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PIP_NO_INDEX": "1",
    }
    command = [sys.executable, "-m", "snakemake", "--configfile", "configs/smoke.yaml", *arguments]
    with (folder / "snakemake.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT)


def submit(folder: Path, cluster: slurm.Slurm) -> subprocess.Popen:
    options = ("--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")
    return start(folder, cluster.environment, *options)


def said(folder: Path) -> str:
    return (folder / "snakemake.log").read_text()


def results_of(record: Record) -> dict:
    """What a run found out, without times, and what its files hold."""
    metrics = {} if record.key.stage == "benchmark" else record.metrics
    return {"metrics": metrics, "sparsity": record.sparsity, "weights": record.model, "spec": record.spec_hash}


@pytest.mark.parametrize(
    "changes", [pytest.param(EVERY_STAGE, id="every stage once"), pytest.param({}, id="smoke, whole")]
)
def test_the_cluster_computes_what_one_machine_does(cluster, tmp_path, monkeypatch, changes):
    here, there = project(tmp_path / "here", changes), project(tmp_path / "there", changes)
    local, submitted = start(here, dict(os.environ), "--cores", "1"), submit(there, cluster)
    assert local.wait() == 0, said(here)
    assert submitted.wait() == 0, said(there)
    folders = [folder / "results/runs/smoke" for folder in (here, there)]
    found = [{r.key.path: r for r in read_records(folder)} for folder in folders]
    monkeypatch.chdir(here)
    planned = {run.key.path for run in Plan.load("configs/smoke.yaml")}
    assert len(planned) >= 10 and planned == found[0].keys() == found[1].keys()
    for path, record in found[0].items():
        assert results_of(record) == results_of(found[1][path]), path
        for name in {"predictions.jsonl", "curves.csv", "teacher_logits.jsonl"} & set(record.files):
            assert (folders[0] / path / name).read_bytes() == (folders[1] / path / name).read_bytes()
    jobs = cluster.jobs("State,ReqTRES,SubmitLine")
    assert {state for state, *_ in jobs} == {"COMPLETED"}
    assert not any("gpu" in asked or "--gpus" in line for _, asked, line in jobs)  # the node has none
    timed = [line for *_, line in jobs if "rule_benchmark" in line]
    assert len(timed) >= 2 and all("--exclusive" in line and "--cpus-per-task=1" in line for line in timed)


def test_a_node_that_is_too_small_is_told_before_anything_is_submitted(cluster, tmp_path):
    changes = {**EVERY_STAGE, "benchmark": {"recipes": ["smoke_quantize"], "threads": 4 * os.cpu_count()}}
    folder, before = project(tmp_path / "project", changes), len(cluster.jobs("JobID"))
    assert submit(folder, cluster).wait() != 0
    assert "(benchmark.threads), and the largest node of the cluster has" in said(folder)
    assert "Traceback" not in said(folder)
    assert len(cluster.jobs("JobID")) == before


def wait_for(holds, process: subprocess.Popen, folder: Path) -> None:
    while not holds():
        assert process.poll() is None, said(folder)
        time.sleep(1)


@pytest.fixture(scope="module")
def troubled(cluster, tmp_path_factory):
    """An experiment of three runs: one takes too much memory, one too much time, and one is cancelled."""
    folder = project(tmp_path_factory.mktemp("troubled"), TROUBLED, without=("upstream", "quantize", "benchmark"))
    process = submit(folder, cluster)
    for method, command in (("too_slow", "timelimit"), ("unwanted", "cancel")):
        wait_for((folder / "results" / method).exists, process, folder)
        (job,) = (
            name
            for name, state, line in cluster.jobs("JobIDRaw,State,SubmitLine")
            if state == "RUNNING" and method in line
        )
        if command == "cancel":
            cluster.run("scancel", job)
        else:
            cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    assert process.wait() == 0, said(folder)
    return folder


def states(cluster, method: str) -> list[str]:
    """What became of the jobs of a method's run, in the order of submission."""
    return [state.split()[0] for state, line in cluster.jobs("State,SubmitLine") if f"smoke_gradual_{method}" in line]


def test_a_job_without_enough_memory_is_told_and_its_retry_asks_for_more(troubled, cluster):
    found = states(cluster, "hungry")
    assert len(found) > 1 and found[-1] == "COMPLETED" and set(found[:-1]) <= {"OUT_OF_MEMORY", "FAILED"}
    asked = [int(memory.rstrip("M")) for memory, line in cluster.jobs("ReqMem,SubmitLine") if "_hungry-" in line]
    assert asked == sorted(set(asked))
    assert "It ran out of memory. Its job asked for" in said(troubled) and "GB of them used at the most" in said(
        troubled
    )


@pytest.mark.parametrize(("method", "state"), [("too_slow", "TIMEOUT"), ("unwanted", "CANCELLED")])
def test_a_job_that_is_ended_goes_on_from_its_checkpoint(troubled, cluster, method, state):
    assert states(cluster, method) == [state, "COMPLETED"]
    log = troubled / f"results/logs/smoke/downstream/movie_reviews/smoke_gradual/{method}-0.8/seed0.log"
    assert "resuming from" in log.read_text()
    paths = {m: troubled / f"results/runs/smoke/downstream/movie_reviews/smoke_gradual/{m}-0.8/seed0" for m in METHODS}
    # The three methods prune alike, and the hungry one was not interrupted in training by anything but its own event.
    whole, resumed = (json.loads((paths[m] / "metrics.json").read_text()) for m in ("hungry", method))
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["model"]["weights_sha256"] == whole["model"]["weights_sha256"]
