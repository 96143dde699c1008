"""Run the parts that need a GPU, each in a process of its own, and print one line of JSON a part when it is done.

    tests/gpu/run.sh [--rehearse] [--seconds 540] [--parts NAME ...]

Lines are kept in a folder: what has one without an error is not run again. Parts of a wave run side by side, those that
are timed run alone. A part that cannot end inside the time budget is not begun, or stopped; SQuAD's go on from their
last checkpoint the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from places import ROOT

HERE = Path(__file__).resolve().parent
LINES = "parts.jsonl"
TESTS = ROOT / "tests"
PATH = os.pathsep.join(filter(None, map(str, (ROOT, TESTS, TESTS / "benchmarks", os.environ.get("PYTHONPATH", "")))))
MARGIN = 10  # seconds that stopping and writing may take


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: its own, and its arguments: `<file>`, or `<file>:<argument>`.
        seconds: it is not begun with less left.
    """

    name: str
    seconds: int

    @property
    def command(self) -> list[str]:
        """Without the options that all parts take."""
        file, _, argument = self.name.partition(":")
        return [sys.executable, str(HERE / f"part_{file}.py"), *([argument] if argument else [])]


WAVES = (
    (Part("environment", 20),),
    (Part("tests", 60), Part("masks", 40)),
    (Part("prune_step", 60),),
    (Part("training:384", 40),),
    (Part("training:128", 40),),
    (Part("fisher", 30),),
    (Part("kernels", 40),),
    (Part("squad:teacher", 60),),
    (Part("squad:obert", 60), Part("squad:magnitude", 60)),
)


class Running:
    """A part's process, its output in a file."""

    def __init__(self, part: Part, folder: Path, options: list[str]):
        self.part = part
        self.log = folder / f"{part.name.replace(':', '_')}.log"
        self.started = time.monotonic()
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [*part.command, *options],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": PATH},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def line(self, deadline: float) -> dict:
        """What it found, waited for until `deadline`, or the error that ended it."""
        stopped = False
        try:
            output, _ = self.process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            stopped = True
            output = self._stop()
        found = self._found(output, stopped)
        return {"part": self.part.name, "wall_seconds": round(time.monotonic() - self.started, 1)} | found

    def _stop(self) -> str:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                return self.process.communicate(timeout=MARGIN / 2)[0]
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        return ""

    def _found(self, output: str, stopped: bool) -> dict:
        if stopped:
            return {"error": "stopped: the time budget is used up"}
        lines = output.strip().splitlines()
        if self.process.returncode == 0 and lines:
            return json.loads(lines[-1])
        last = (self.log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        return {"error": f"exit status {self.process.returncode}: {last}", "log": str(self.log)}


def done_before(folder: Path) -> set[str]:
    """Names of the parts whose last line in a folder has no error."""
    path = folder / LINES
    lines = map(json.loads, path.read_text().splitlines()) if path.is_file() else ()
    return {name for name, line in {line["part"]: line for line in lines}.items() if "error" not in line}


def keep(line: dict, folder: Path) -> None:
    """Print a part's line and add it to the folder's; `$OUT`, where it is set, receives a copy of them."""
    print(json.dumps(line), flush=True)
    with (folder / LINES).open("a") as file:
        file.write(json.dumps(line) + "\n")
    if out := os.environ.get("OUT"):
        shutil.copy(folder / LINES, out)


def main(argv: list[str] | None = None) -> int:
    names = [part.name for wave in WAVES for part in wave]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="tiny models, on the CPU; so without a GPU")
    parser.add_argument("--seconds", type=float, default=540, help="time budget")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--folder", type=Path, help="of lines, logs and models; results/gpu, or results/gpu/rehearsal")
    arguments = parser.parse_args(argv)
    deadline = time.monotonic() + arguments.seconds
    rehearse = arguments.rehearse or not has_gpu()
    folder = (arguments.folder or ROOT / "results" / "gpu" / ("rehearsal" if rehearse else "")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--folder", str(folder), *(["--rehearse"] if rehearse else [])]
    done, failed = done_before(folder), []
    for wave in WAVES:
        chosen = [part for part in wave if part.name in arguments.parts and part.name not in done]
        left = deadline - time.monotonic()
        running = [Running(part, folder, options) for part in chosen if part.seconds + MARGIN <= left]
        with ThreadPoolExecutor(len(WAVES)) as pool:
            for waiting in as_completed([pool.submit(part.line, deadline - MARGIN) for part in running]):
                line = waiting.result() | {"rehearsal": rehearse}
                keep(line, folder)
                (failed.append if "error" in line else done.add)(line["part"])
    missing = [name for name in arguments.parts if name not in done]
    print(json.dumps({"left": missing, "failed": failed}), flush=True)
    return 1 if failed else 0


def has_gpu() -> bool:
    """Asked in a process of its own: this one takes no memory on the GPU."""
    command = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", command]).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
