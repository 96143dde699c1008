"""No test reaches the network, and none depends on another's threads or working folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from pytest_socket import disable_socket

ROOT = Path(__file__).parent.parent
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MLFLOW_DISABLE_TELEMETRY="true")


@pytest.fixture(autouse=True)
def _no_network(request):
    if not request.node.get_closest_marker("network"):
        disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obert.splits.CACHE", folder / "splits")
        patch.setattr("obert.packing.FOLDER", folder / "packed")
        yield


@pytest.fixture
def root(monkeypatch) -> Path:
    """The project's folder, made the working folder."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def postgresql(tmp_path_factory):
    """URL of a database on a PostgreSQL server of the test's own, without a network."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'obert[postgresql]'")
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    binaries = next((Path(path).resolve().parent for path in found if path), None)
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql, or as the system has it")
    folder = tmp_path_factory.mktemp("pg")
    as_user = []
    if os.geteuid() == 0:  # it does not run as root
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        shutil.chown(folder, 65534, 65534)
        for parent in folder.parents[:2]:
            parent.chmod(0o755)
    data, socket = folder / "data", folder
    log = folder / "log"
    run = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", "test", "-A", "trust", "-N"]
    subprocess.run(run, check=True, capture_output=True, cwd=folder)
    options = f"-c listen_addresses='' -c unix_socket_directories={socket} -c fsync=off"
    control = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-l", str(log), "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=folder)
    yield f"postgresql+psycopg://test@/postgres?host={socket}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)
