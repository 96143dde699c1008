"""A full disk is told as one, whichever library meets it: on files that may not grow, and on a disk of 1 MB."""

import errno
import json
import os
import subprocess
import sys

import pytest

from obert.foundation.storage import refusal

WRITE = """
import json, resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from obert.foundation.files import write_text
from obert.foundation.storage import refusal

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
tensor = torch.zeros(2_000_000)
told = {}
for name, write in {
    "torch": lambda: torch.save({"state": tensor}, folder / "optimizer.pt"),
    "safetensors": lambda: save_file({"weight": tensor}, folder / "model.safetensors"),
    "ours": lambda: write_text(folder / "predictions.jsonl", "x" * 8_000_000),
}.items():
    try:
        write()
    except BaseException as error:
        told[name] = refusal(error)
    (folder / "optimizer.pt").unlink(missing_ok=True)
    (folder / "model.safetensors").unlink(missing_ok=True)
print(json.dumps([told, sorted(path.name for path in folder.iterdir())]))
"""


def written(folder, limit):
    done = subprocess.run([sys.executable, "-c", WRITE, str(folder), str(limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, left = json.loads(done.stdout)
    assert left == []
    assert set(told) == {"torch", "safetensors", "ours"}
    for message in told.values():
        assert "Free some space and run the same command again" in message
    assert told["torch"].startswith("a file could not be written, as when the disk is full: ")
    return told


def test_files_that_may_not_grow(root, tmp_path):
    told = written(tmp_path, 50_000)
    assert told["ours"].startswith("a file is too large: ") and told["safetensors"].startswith("a file is too large: ")


def test_a_disk_that_is_full(root, tmp_path):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system takes root's rights")
    try:
        told = written(tmp_path, 0)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert told["ours"].startswith("the disk is full: ") and told["safetensors"].startswith("the disk is full: ")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "the disk quota is used up"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "a file could not be written"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "a file could not be"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "results/x"), "results/x: Permission denied. Make it"),
        (OSError(errno.EROFS, "Read-only file system", "results"), "results: Read-only file system. Make it"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), None),
        (RuntimeError("shape mismatch"), None),
    ],
)
def test_what_is_told_of_an_error_and_of_one_that_hides_it(error, expected):
    hiding = ValueError("something else")
    hiding.__context__ = error
    caused = ValueError("something else")
    caused.__cause__ = error
    for each in (error, hiding, caused):
        told = refusal(each)
        assert told is None if expected is None else told.startswith(expected)
