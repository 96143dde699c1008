"""No test reaches the network, and none depends on another's threads or working folder."""

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml
from pytest_socket import disable_socket, enable_socket, socket_allow_hosts

from obert.experiment.reading import merge
from obert.tracking import store

ROOT = Path(__file__).parent.parent
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MLFLOW_DISABLE_TELEMETRY="true")
# One thread each for processes that tests start: they run beside other tests, and a second one only waits on models as
# small as theirs.
os.environ["OMP_NUM_THREADS"] = "1"
LONGEST = (  # files by seconds, the first in minutes
    "test_workflow.py",
    "test_every_architecture.py",
    "test_architectures.py",
    "test_export_and_benchmark.py",
    "test_nothing_is_lost.py",
    "test_methods_in_training.py",
    "test_tables_contract.py",
    "test_live.py",
)


def pytest_collection_modifyitems(items):
    """What takes longest goes first, so that no worker is left alone with it in the end."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.path.name) in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """Keep the garbage collector off what is imported by now: to go through it each time took a third of a worker."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def _no_network(request):
    if not request.node.get_closest_marker("network"):
        disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _one_thread():
    """Whatever the test before has set."""
    torch.set_num_threads(1)


@pytest.fixture
def package_index(tmp_path, monkeypatch):
    """An empty folder that pip looks for wheels in, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obert.data.checked.CACHE", folder / "splits")
        patch.setattr("obert.data.packing.FOLDER", folder / "packed")
        yield


@pytest.fixture
def root(monkeypatch) -> Path:
    """The project's folder, made the working folder."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def config(root, tmp_path, monkeypatch):
    """Writes a changed copy of the smoke configuration and keeps results out of the project."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")

    def write(**changes):
        content = merge(yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8")), changes)
        path = tmp_path / "edited.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture(scope="session")
def initialized(tmp_path_factory):
    """An MLflow database file that was initialised once; migrating an empty one takes a second."""
    database = tmp_path_factory.mktemp("initialized") / "new" / "mlflow.db"
    store.initialize(f"sqlite:///{database}")
    return database


@pytest.fixture
def uri(tmp_path, initialized):
    """URI of an MLflow database of the test's own."""
    (tmp_path / "tracking").mkdir()
    shutil.copy(initialized, tmp_path / "tracking")
    return f"sqlite:///{tmp_path}/tracking/mlflow.db"


@pytest.fixture
def postgresql():
    """URL of a database on a PostgreSQL server of the test's own, without a network."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'obert[postgresql]'")
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    binaries = next((Path(path).resolve().parent for path in found if path), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql, or as the system has it")
    # Not below pytest's folder, which every other run of pytest closes to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        as_user = []
        if os.geteuid() == 0:  # it does not run as root
            as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            shutil.chown(folder, 65534, 65534)

        def call(name, *arguments):
            command = [*as_user, str(binaries / name), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, check=True, capture_output=True, cwd=folder)

        call("initdb", "-U", "test", "-A", "trust", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "-l", f"{folder}/log", "-w", "-o", options, "start")
        yield f"postgresql+psycopg://test@/postgres?host={folder}"
        call("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture
def server(postgresql, tmp_path):
    """URI of an MLflow server of the test's own, which it may connect to."""
    enable_socket()
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", postgresql, "--artifacts-destination", str(tmp_path / "artifacts")]
    uri, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # seven processes that serve nothing here
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while not _answers(uri):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _answers(uri):
    try:
        return urllib.request.urlopen(f"{uri}/health", timeout=5).status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
