"""Uploads to a stand-in for the Hugging Face Hub, on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pytest_socket import enable_socket, socket_allow_hosts

from obert.commands import push
from obert.foundation.errors import UserError

OWNER = "ada/pruned"


class Hub(BaseHTTPRequestHandler):
    """Takes one commit of small files. Refuses the owner `eve`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.asked.append(asked)
            if asked.get("organization") == "eve":
                return self.answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return self.answer({"url": f"{self.server.address}/{OWNER}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(
                {"commitUrl": f"{self.server.address}/{OWNER}/commit/1", "commitOid": "1", "success": True}
            )
        return self.answer({"error": self.path}, 404)

    def do_GET(self):
        if "eve" in self.path:
            return self.answer({"error": "Repository not found"}, 404)
        return self.answer({"id": OWNER, "sha": "0", "siblings": []})

    def answer(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    enable_socket()
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.address, server.files, server.asked = f"http://127.0.0.1:{server.server_port}", {}, []
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_folder(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    for name, content in {"README.md": b"# card", "model.safetensors": b"weights", "config.json": b"{}"}.items():
        (model / name).write_bytes(content)
    (model / ".snakemake_timestamp").touch()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    return tmp_path / "run"


def test_nothing_leaves_this_machine_unless_it_is_asked_for(run_folder):
    said = push.run(run_folder, OWNER, upload=False)  # a test has no network
    assert "Nothing was sent" in said and "model.safetensors" in said and ".snakemake" not in said


def test_what_is_uploaded_is_the_model_with_its_card(hub, run_folder):
    said = push.run(run_folder, OWNER, upload=True, private=True)
    assert hub.files == {"README.md": b"# card", "model.safetensors": b"weights", "config.json": b"{}"}
    assert hub.asked[0]["visibility"] == "private"
    assert said.startswith("Uploaded to ") and OWNER in said


def test_what_the_hub_refuses_is_one_message(hub, run_folder):
    with pytest.raises(UserError, match=r"eve/model was not uploaded: .*403.*hf auth login"):
        push.run(run_folder, "eve/model", upload=True)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match="was not uploaded"):
        push.run(run_folder, OWNER, upload=True)


@pytest.mark.parametrize(
    ("missing", "repository", "said"),
    [
        ("model.safetensors", OWNER, "holds no model"),
        ("README.md", OWNER, "no model card"),
        (None, "a/b/c", "Allowed: <owner>/<name>"),
    ],
)
def test_what_cannot_be_uploaded_is_told_before(run_folder, missing, repository, said):
    if missing:
        (run_folder / "model" / missing).unlink()
    with pytest.raises(UserError, match=said):
        push.run(run_folder, repository, upload=True)
