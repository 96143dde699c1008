"""Time of `obert tables`, from records and from MLflow, for an experiment of 500 runs of BERT-base's shape.

    python tests/benchmarks/report.py --json

Two tasks, all methods, three seeds; each run has 1000 predictions, each trained one 300 steps. The server is one of
this machine, with a fresh database; filling it is not part of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from _pretended import write_run
from _timing import show

from obert.commands import tables
from obert.experiment import folders
from obert.experiment.folders import runs_folder, tables_folder
from obert.experiment.plan import Plan
from obert.experiment.schema import Benchmark, Downstream, Experiment, Model
from obert.records.provenance import environment
from obert.tracking import store as tracking_store
from obert.tracking.mirror import synchronize

START_SECONDS = 60  # a server may take to answer


def experiment(uri: str) -> Experiment:
    """500 planned runs."""
    return Experiment(
        name="speed",
        description="Runs that were never made.",
        model=Model(source="example"),
        tasks={"movie_reviews": {}, "city_qa": {}},
        seeds=(0, 1, 2),
        teacher="finetune",
        downstream=(
            Downstream(recipes=("real_equal_terms",), methods="all", sparsities=(0.5, 0.6, 0.7, 0.8, 0.9, 0.97)),
            Downstream(recipes=("one_shot",), methods=("magnitude", "obd", "obert"), sparsities=(0.5, 0.6, 0.7)),
        ),
        benchmark=Benchmark(recipes=("real_equal_terms",), sparsities=(0.9,)),
        tracking_uri=uri,
    )


@contextmanager
def server(folder: Path):
    """The URI of a fresh MLflow server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(uri, process, folder / "server.log")
            yield uri
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def _wait_for(uri: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(f"{uri}/health", timeout=2).close()
            return
        except (URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"the MLflow server does not answer:\n{log.read_text()[-2000:]}")


@contextmanager
def database(folder: Path):
    """The URI of a fresh SQLite database, read without a server."""
    yield f"sqlite:///{folder}/mlflow.db"


def compare(folder: Path, records: int | None, store) -> dict[str, object]:
    """Seconds from the records and from the store, and whether both write the same files.

    Args:
        records: how many of the planned runs there are, all by default.
        store: `server` or `database`.
    """
    folders.RESULTS = folder / "results"
    with store(folder) as uri:
        made = experiment(uri)
        plan = Plan.of(made)
        runs = list(plan)[:records]
        generator, machine = np.random.default_rng(0), environment()
        for run in runs:
            write_run(run, generator, machine)
        found: dict[str, object] = {"records": len(runs), "cores": os.cpu_count(), "store": store.__name__}
        found["seconds_from_records"] = _timed(lambda: tables.run(plan, "configs/speed.yaml"))
        files = {path.name: path.read_bytes() for path in tables_folder(made).iterdir()}
        tracking_store.initialize(uri)
        found["seconds_to_fill_mlflow"] = _timed(lambda: synchronize(runs_folder(made), uri))
        found["seconds_from_mlflow"] = _timed(lambda: tables.run(plan, "configs/speed.yaml", uri))
        found["same_files"] = files == {path.name: path.read_bytes() for path in tables_folder(made).iterdir()}
        found["report_mb"] = len(files[tables.REPORT]) / 1e6
    return found


def _timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, help="of the planned runs, in the order of the plan; all by default")
    parser.add_argument("--database", action="store_true", help="read MLflow's database without a server")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), chosen.records, database if chosen.database else server)
    print(json.dumps(found) if chosen.json else show(found))


if __name__ == "__main__":
    main()
