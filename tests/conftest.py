"""No test reaches the network, and none depends on another's threads or working folder."""

import os
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
