"""MLflow's own pages over mirrored runs, in headless Chromium: what they show first."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient
from pytest_socket import enable_socket, socket_allow_hosts
from tables.examples import record, write_run

from obert.tracking.mirror import synchronize
from obert.tracking.naming import VIEW

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.browser]

# Where each column of the list of runs begins, in pixels.
POSITIONS = """Object.fromEntries([...document.querySelectorAll("[data-testid^=sort-header-], [role=columnheader]")]
.map(cell => [cell.innerText.trim(), cell.getBoundingClientRect().x]))"""


@pytest.fixture
def pages(uri, tmp_path):
    """The address of MLflow's pages over the test's database."""
    enable_socket()
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", uri],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture
def page():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        page = browser.new_page(viewport={"width": 2400, "height": 1600})
        page.set_default_timeout(240_000)
        yield page
        browser.close()


def test_names_score_and_sparsity_come_first(uri, pages, page, tmp_path):
    for method in ("obert", "magnitude"):
        made = record("downstream", 80.0, task="sst2", method=method, sparsity=0.9)
        write_run(tmp_path / "runs", made, steps=3)
    synchronize(tmp_path / "runs", uri, "configs/default.yaml")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("example").experiment_id
    runs = sorted(client.search_runs([experiment]), key=lambda run: run.data.tags["method"])

    page.goto(f"{pages}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}")
    page.get_by_text("magnitude 90 % · SST-2").first.wait_for()
    columns = ["Result/score", "Result/sparsity", "method", "recipe"]
    page.wait_for_function(f"{columns}.every(name => ({POSITIONS})[name] > 0)")
    positions = page.evaluate(POSITIONS)  # the grid's elements come in no order
    assert sorted(columns, key=positions.get) == columns

    compared = json.dumps([run.info.run_id for run in runs])
    page.goto(f"{pages}/#/compare-runs?runs={compared}&experiments={json.dumps([experiment])}")
    page.locator("a", has_text="Result/sparsity").first.wait_for()
    links = page.locator("a", has_text="Result/").or_(page.locator("a", has_text="accuracy")).all_inner_texts()
    assert links == ["Result/score", "Result/sparsity", "accuracy"]

    page.goto(f"{pages}/#/experiments/{experiment}/runs/{runs[1].info.run_id}")
    page.get_by_text("python -m obert downstream --config configs/default.yaml").wait_for()
    assert page.get_by_text("obert 90 % · SST-2 · gradual · seed 0").first.is_visible()
