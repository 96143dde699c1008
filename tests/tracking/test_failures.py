"""A tracking server that refuses, breaks, or is none: one clear message of each command, without its password."""

import pytest
from pytest_socket import enable_socket, socket_allow_hosts
from tables.examples import record, write_run
from tracking.stand_in import HTML, stand_in

from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.foundation.errors import UserError
from obert.records.record import write_record
from obert.tracking.fetch import fetch
from obert.tracking.mirror import mirror_run

DENIED = {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}
ANSWERS = [
    (401, HTML, "HTTP 401 (Unauthorized). It wants to know who asks: set MLFLOW_TRACKING_USERNAME"),
    (403, HTML, "HTTP 403 (Forbidden). It does not let you: ask its owner"),
    (403, DENIED, "HTTP 403 (Forbidden, PERMISSION_DENIED: Permission denied). It does not let you: ask its owner"),
    (404, HTML, "HTTP 404 (Not Found). What answers there is no MLflow"),
    (413, HTML, "HTTP 413 (Request Entity Too Large). A proxy before it takes no files of this size"),
    (429, HTML, "HTTP 429 (Too Many Requests). It takes no more requests"),
    (500, HTML, "HTTP 500 (Internal Server Error). The server or a proxy before it failed"),
    (502, HTML, "HTTP 502 (Bad Gateway). The server or a proxy before it failed"),
    (599, HTML, "HTTP 599 (unknown). The server or a proxy before it failed"),
    (200, HTML, "the answer is not JSON. What answers there is no MLflow, but a sign-in page"),
]
SECRET = "pa55w0rd"


@pytest.fixture
def at(config):
    """The experiment's file with a tracking server at a port of this machine."""
    enable_socket()
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    return lambda port: config(tracking_uri=address(port))


def address(port):
    return f"http://me:{SECRET}@127.0.0.1:{port}"


@pytest.mark.parametrize(("status", "content", "message"), ANSWERS, ids=lambda value: str(value)[:3])
def test_each_answer_of_a_server_is_one_clear_message_of_each_command(at, capsys, status, content, message):
    with stand_in(lambda *_: (status, content)) as port:
        path = at(port)
        for command in (["tables", "--from-mlflow", address(port)], ["track"], ["check"], ["prepare"]):
            assert main([command[0], "--config", path, *command[1:]]) == 2
            said = capsys.readouterr()
            (line,) = said.err.splitlines()
            assert line.startswith(
                f"obert {command[0]}: tracking store http://me:***@127.0.0.1:{port} failed: {message}"
            )
            assert SECRET not in said.out + said.err


def test_a_finished_run_stays_with_the_command_that_mends_whatever_the_proxy_says(at, capsys, monkeypatch):
    made = record("teacher", 90.0)
    monkeypatch.setattr("obert.stages.teacher.Teacher.run", lambda *_: made)
    with stand_in(lambda *_: (413, HTML)) as port:
        path = at(port)
        folder = Plan.load(path).find("teacher", task="city_qa").folder
        write_record(folder, made)
        assert main(["teacher", "--config", path, "--task", "city_qa"]) == 0
    said = capsys.readouterr().err
    assert "the run is complete, but not in MLflow" in said and "HTTP 413" in said and SECRET not in said
    assert f"Later, `python -m obert track --config {path}` does the rest." in said
    assert (folder / "metrics.json").is_file()


def test_a_page_in_the_place_of_a_record_is_found(uri, tmp_path):
    folder = write_run(tmp_path / "runs", record("teacher", 90.0))
    mirror_run(folder, uri)
    (kept,) = (tmp_path / "tracking" / "artifacts").rglob("metrics.json")
    kept.write_bytes(HTML)
    with pytest.raises(UserError, match=r"metrics\.json of 'teacher/.*seed0' is not the one that was mirrored"):
        fetch(uri, "example", tmp_path / "fetched")
