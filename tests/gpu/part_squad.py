"""SQuAD v1.1 by the stages' command line: the teacher, or a model pruned by a method. Goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml
from measuring import Options, run_part
from places import CARRIED, ROOT

METHODS = ("obert", "magnitude")
SPARSITY = "0.9"


def configuration(options: Options) -> dict:
    """That of `squad.yaml`; in a rehearsal with the tests' model and data, and fewer steps."""
    content = yaml.safe_load(Path(__file__).with_name("squad.yaml").read_text(encoding="utf-8"))
    if not options.rehearse:
        for folder in (CARRIED / "minilm", CARRIED / "squad"):
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder}: make it with tests/gpu/carry.py, and carry it here")
        content["model"]["source"] = str(CARRIED / "minilm")
        content["tasks"]["squad"]["source"] = str(CARRIED / "squad")
        return content
    data = ROOT / "tests" / "data"
    content["name"] += "_rehearsal"
    content["model"]["source"] = str(data / "tiny_bert")
    content["tasks"]["squad"] = {"source": str(data / "city_qa"), "max_length": 64, "doc_stride": 16}
    recipes = content["recipe_overrides"]["squad"]
    for recipe in recipes.values():
        recipe["training"] |= {"batch_size": 4}
    recipes["gradual"]["schedule"] |= {"every_epochs": 0.5}
    recipes["gradual"]["methods"]["obert"] |= {"num_gradients": 16, "gradient_batch_size": 8}
    return content


def measure(options: Options) -> dict:
    """F1 and exact match, sparsity, seconds and steps of the record that the stage has written.

    The stage may fail after its record, where there is no MLflow to mirror it to.
    """
    content, work = configuration(options), options.folder / "squad"
    work.mkdir(exist_ok=True)
    if not (work / "configs").exists():
        (work / "configs").symlink_to(ROOT / "configs")
    config = work / f"{content['name']}.{options.argument}.yaml"  # one a part: they run side by side
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "obert"]
    if options.argument == "teacher":
        command += ["teacher", "--recipe", "finetune"]
    else:
        command += ["downstream", "--recipe", "gradual", "--method", options.argument, "--sparsity", SPARSITY]
    command += ["--config", str(config), "--task", "squad", "--seed", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if options.rehearse:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    started = time.time()
    done = subprocess.run(command, cwd=work, env=environment, stdout=sys.stderr)
    variant = "dense" if options.argument == "teacher" else f"{options.argument}-{SPARSITY}"
    records = list((work / "results" / "runs" / content["name"]).glob(f"*/squad/*/{variant}/seed0/metrics.json"))
    records = [path for path in records if path.stat().st_mtime >= started - 1]
    if not records:
        sys.exit(f"obert {command[3]} ended with status {done.returncode} and wrote no record")
    record = json.loads(records[0].read_text(encoding="utf-8"))
    found = {name: score["value"] for name, score in record["metrics"].items()}
    sparsity = record["sparsity"]["measured"] if record["sparsity"] else 0.0
    return found | {
        "examples": next(iter(record["metrics"].values()))["count"],
        "sparsity": sparsity,
        "features": record["data"]["features"],
        "costs": record["costs"],
        "stage_seconds": record["wall_time_seconds"],
        "stage_status": done.returncode,
    }


if __name__ == "__main__":
    run_part(measure, __doc__, ("teacher", *METHODS))
