"""What it costs to plan an experiment: CPU seconds of a fresh process, by number of runs.

A process loads an experiment and takes from its plan all that Snakemake asks of each run: key, folder, sources, and the
hashes of specification and code. Imports are part of it. The experiments are the grid of `configs/paper.yaml` with as
many seeds as it takes, cut to the number of runs. `growth` is the ratio of the last figure to the first.

    python tests/benchmarks/planning.py --runs 300 1200 --json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

REPEATS = 3
PLAN = """
import resource, sys
from obert.experiment.plan import Plan

runs = list(Plan.load(sys.argv[1]))[: int(sys.argv[2])]
asked = [
    (r.key.path, r.key.arguments, r.folder, [s.folder for s in r.made_from], r.specification_hash, r.code_hash)
    for r in runs
]
usage = resource.getrusage(resource.RUSAGE_SELF)
print(len(asked), usage.ru_utime + usage.ru_stime)
"""


def write_experiment(path: Path, runs: int) -> None:
    """The paper's experiment with enough seeds for a number of runs."""
    content = yaml.safe_load(Path("configs/paper.yaml").read_text(encoding="utf-8"))
    content["name"] = path.stem
    seeds = list(range(3 * -(-runs // 100)))
    content["seeds"] = seeds
    for block in (*content["downstream"], *content["quantize"], *content["upstream"]["transfer"]):
        if "seeds" in block:
            block["seeds"] = seeds
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def cpu_seconds(path: Path, runs: int) -> float:
    """CPU seconds of one process that plans `runs` runs."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(path), str(runs)], capture_output=True, text=True, check=True
    )
    planned, seconds = done.stdout.split()
    if int(planned) != runs:
        raise RuntimeError(f"{path} plans {planned} runs, not {runs}")
    return float(seconds)


def measure(numbers: list[int]) -> dict[str, object]:
    """Median seconds by number of runs, taken in turns, and how they grow."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {number: Path(folder) / f"planning_{number}.yaml" for number in numbers}
        for number, own in paths.items():
            write_experiment(own, number)
        taken = {number: [] for number in numbers}
        for _ in range(REPEATS):
            for number, own in paths.items():
                taken[number].append(cpu_seconds(own, number))
    seconds = {number: round(median(values), 3) for number, values in taken.items()}
    return {"seconds": seconds, "growth": round(seconds[numbers[-1]] / seconds[numbers[0]], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[300, 1200])
    parser.add_argument("--json", action="store_true", help="one line")
    arguments = parser.parse_args()
    found = measure(arguments.runs)
    print(json.dumps(found, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
