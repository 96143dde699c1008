"""What a large experiment costs before and after its training: CPU seconds and peak memory of each command by size.

Two sizes double the tasks and the seeds in turn, so that what grows faster than the runs is seen wherever it is. No run
is made: records, predictions and curves are pretended, of BERT-base's shape. Each command runs in a fresh process.

    python tests/benchmarks/campaign.py --runs 500 1000 2000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from _pretended import write_run
from _timing import show

from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.records.provenance import environment

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "configs", "tests")  # of the project, which the commands find in their folder
CONFIG = "campaign.yaml"
REVIEWS, CITIES = "tests/data/movie_reviews", "tests/data/city_qa"
TASKS = {
    "movie_reviews": {"source": REVIEWS, "max_length": 32},
    "my_reviews": {"kind": "cola", "source": REVIEWS, "max_length": 32},
    "city_qa": {"source": CITIES, "max_length": 64, "doc_stride": 16},
    "my_cities": {"kind": "city_qa", "source": CITIES, "max_length": 64, "doc_stride": 16},
}
ONE_SHOT = ROOT / "configs/recipes/smoke_one_shot.yaml"  # draws no more than the tests' data has
RECIPE = {
    "extends": "smoke_gradual",
    "description": "Gradual pruning that suits every method.",
    "training": {"batch_size": 8},
    "schedule": {"start_epoch": 1.5, "end_epoch": 2.5},
    "methods": yaml.safe_load(ONE_SHOT.read_text(encoding="utf-8"))["methods"]
    | {"rigl": {"gradient_batch_size": 8}, "snip": {"gradient_batch_size": 8}},
}
SIZES = {500: (2, 2), 1000: (4, 2), 2000: (4, 4)}  # about so many runs: tasks and seeds
TRACKING = "results/tracking/campaign/mlflow.db"
OBERT = (sys.executable, "-m", "obert")
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--configfile", CONFIG, "--cores", "2")


def experiment(tasks: int, seeds: int) -> dict[str, object]:
    """A study of all methods in equal terms and in one shot, upstream and quantised: the contents of its file."""
    chosen = dict(list(TASKS.items())[:tasks])
    return {
        "name": "campaign",
        "description": "Runs that were never made.",
        "model": {"source": "tests/data/tiny_bert"},
        "tasks": chosen,
        "seeds": list(range(seeds)),
        "threads": 1,
        "extensions": "own",
        "teacher": "smoke_finetune",
        "upstream": {
            "options": {"source": "tests/data/mlm", "max_length": 32},
            "teacher": "smoke_masked_language_model",
            "grid": [{"recipes": ["smoke_upstream"], "methods": ["obert", "prune_ofa"], "sparsities": [0.8, 0.9]}],
            "transfer": [{"recipe": "smoke_transfer", "upstream": ["smoke_upstream"]}],
        },
        "downstream": [
            {"recipes": ["campaign_gradual"], "methods": "all", "sparsities": [0.7, 0.75, 0.8, 0.85, 0.9]},
            {"recipes": ["smoke_one_shot"], "methods": "all", "sparsities": [0.4, 0.5, 0.6, 0.7, 0.8]},
        ],
        "quantize": [
            {"recipe": "smoke_quantize", "models": ["campaign_gradual"], "methods": ["obert"], "sparsities": [0.8, 0.9]}
        ],
        "benchmark": {
            "recipes": ["campaign_gradual", "smoke_quantize"],
            "methods": ["magnitude", "obert"],
            "engines": ["pytorch", "onnxruntime"],
            "batch_size": 2,
            "sequence_length": 16,
            "threads": 1,
        },
        "papers": ["obert"],
        "tracking_uri": f"sqlite:///{TRACKING}",
    }


def make_project(folder: Path, tasks: int, seeds: int) -> Plan:
    """A folder to run commands in, with the experiment, and its plan."""
    for part in PARTS:
        (folder / part).symlink_to(ROOT / part)
    (folder / "own/recipes").mkdir(parents=True)
    (folder / "own/recipes/campaign_gradual.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (folder / CONFIG).write_text(yaml.safe_dump(experiment(tasks, seeds), sort_keys=False), encoding="utf-8")
    os.chdir(folder)
    return Plan.load(CONFIG)


def pretend(plan: Plan) -> None:
    """Write the records and files of all runs of a plan below the working folder."""
    folders.RESULTS = Path("results")
    generator, machine = np.random.default_rng(0), environment()
    for run in plan:
        write_run(run, generator, machine)


def cost(*command: str) -> dict[str, float]:
    """CPU seconds of a command with all its processes, and the most memory that one of them held, in MB."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read().decode()[-2000:]}")
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime, 1), "peak_mb": round(used.ru_maxrss / 1e3)}


def measure(tasks: int, seeds: int) -> dict[str, object]:
    """The cost of each command for an experiment of a size, and what it leaves."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            plan = make_project(Path(folder), tasks, seeds)
            found: dict[str, object] = {"runs": len(plan)}
            found["check"] = cost(*OBERT, "check", "--config", CONFIG)
            found["plan"] = cost(*OBERT, "plan", "--config", CONFIG)
            found["dry run of all"] = cost(*SNAKEMAKE, "-n", "--quiet")
            pretend(plan)
            found["plan as the status"] = cost(*OBERT, "plan", "--config", CONFIG)
            found["tables"] = cost(*OBERT, "tables", "--config", CONFIG)
            found["summary"] = cost(*OBERT, "summary", "--config", CONFIG)
            found["mirror"] = cost(*OBERT, "track", "--config", CONFIG)
            found["mirror of what is there"] = cost(*OBERT, "track", "--config", CONFIG)
            found["tables from the mirror"] = cost(
                *OBERT, "tables", "--config", CONFIG, "--from-mlflow", f"sqlite:///{TRACKING}"
            )
            cost(*SNAKEMAKE, "--touch", "--quiet")  # what is there counts as made by it
            found["dry run of nothing"] = cost(*SNAKEMAKE, "-n", "--quiet")
            pages = sorted(folders.tables_folder(plan.experiment).glob("*.html"))
            found["largest page in MB"] = round(max(page.stat().st_size for page in pages) / 1e6, 2)
        finally:
            os.chdir(before)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="about so many")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    chosen = parser.parse_args(arguments)
    found = {size: measure(*SIZES[size]) for size in chosen.runs}
    print(json.dumps(found) if chosen.json else "\n".join(show(of_size) for of_size in found.values()))


if __name__ == "__main__":
    main()
