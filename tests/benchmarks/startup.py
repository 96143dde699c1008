"""CPU seconds that a stage takes before its first optimiser step, against those of importing what it cannot do without.

    python tests/benchmarks/startup.py --json

A run of the smoke experiment's upstream teacher is stopped at its first optimiser step, in a folder of its own whose
assets and database are prepared. The floor is a process that imports torch and `transformers.Trainer` and ends. The two
take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _timing import show

ROOT = Path(__file__).resolve().parents[2]
# Not the teacher of a task, which is exported on trial before it is trained.
STAGE = ("upstream_teacher", "--config", "configs/smoke.yaml")

# Process start to here, with the processes that were waited for.
_SPENT = """
import json, resource, sys
def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    packages = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"seconds": sum(use.ru_utime + use.ru_stime for use in used), "packages": packages}), flush=True)
"""
_FLOOR = f"""{_SPENT}
import torch
from transformers import Trainer
spent()
"""
_FIRST_STEP = f"""{_SPENT}
import os, runpy
from torch.optim.optimizer import register_optimizer_step_pre_hook
def stop(*_):
    spent()
    os._exit(0)
register_optimizer_step_pre_hook(stop)
runpy.run_module("obert", run_name="__main__", alter_sys=True)
"""


def _python(*arguments: str, folder: Path) -> str:
    """What Python writes to stdout when it is given these arguments, in a folder."""
    variables = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"a process failed before it was measured:\n{done.stderr}")
    return done.stdout


def prepare(folder: Path) -> None:
    """Make an empty folder one that the stage runs in."""
    for shared in ("configs", "tests"):
        (folder / shared).symlink_to(ROOT / shared)
    _python("-m", "obert", "prepare", "--config", "configs/smoke.yaml", folder=folder)


def first_step(folder: Path) -> dict[str, Any]:
    """CPU `seconds` to the stage's first optimiser step in a prepared folder, and the `packages` imported by it."""
    return json.loads(_python("-c", _FIRST_STEP, *STAGE, folder=folder).splitlines()[-1])


def floor(folder: Path) -> dict[str, Any]:
    """The same of importing torch and `transformers.Trainer`."""
    return json.loads(_python("-c", _FLOOR, folder=folder))


def measure(repetitions: int) -> dict[str, Any]:
    """Median CPU seconds (user and system, children included) of both, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        found = [(first_step(folder)["seconds"], floor(folder)["seconds"]) for _ in range(repetitions + 1)]
    # The first of each fills the caches of byte code and of data.
    seconds, least = (statistics.median(values) for values in zip(*found[1:], strict=True))
    return {"seconds": seconds, "floor": least, "ratio": seconds / least, "repetitions": repetitions}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7, help="after one that does not count")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    found = measure(arguments.repetitions)
    print(json.dumps(found) if arguments.json else show(found))


if __name__ == "__main__":
    main()
