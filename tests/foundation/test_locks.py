"""Locks between processes: one holder at a time, whatever becomes of the files beside the lock's."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.foundation.locks import locked
from obert.foundation.registry import PACKAGE

HOLDER = """
import sys
from pathlib import Path
from obert.foundation.locks import locked

with locked(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""
# Each adds 1 to a number so often; it is read, and its file replaced, within the lock.
COUNTER = """
import sys
from pathlib import Path
from obert.foundation.files import write_text
from obert.foundation.locks import locked

number = Path(sys.argv[1])
for _ in range(200):
    with locked(number.with_name(".lock")):
        write_text(number, str(int(number.read_text()) + 1))
"""


def _start(program, path):
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(PACKAGE.parent)},
        text=True,
    )


@pytest.fixture
def holder(tmp_path):
    """A process that is in the block of a lock, until a line is written to it."""
    process = _start(HOLDER, tmp_path / "folder" / ".lock")
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


def test_who_does_not_wait_is_told(holder, tmp_path):
    with pytest.raises(BlockingIOError, match=r"holds .*\.lock"), locked(tmp_path / "folder" / ".lock", wait=False):
        pass
    holder.communicate("\n")
    with locked(tmp_path / "folder" / ".lock", wait=False):
        pass


def test_who_waits_comes_in_when_the_other_is_out(holder, tmp_path):
    second = _start(HOLDER, tmp_path / "folder" / ".lock")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.5)
    holder.communicate("\n")
    assert second.stdout.readline() == "in\n"
    second.communicate("\n")
    assert second.returncode == 0


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "folder" / ".lock", wait=False):
        pass


def test_a_file_that_is_replaced_meanwhile_lets_no_second_one_in(tmp_path):
    number = tmp_path / "number"
    write_text(number, "0")
    processes = [_start(COUNTER, number) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert number.read_text() == "400"


def test_an_error_within_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock"):
        raise ZeroDivisionError
    with locked(tmp_path / ".lock", wait=False):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [True, False])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number, wait):
    def flock(*_):
        raise OSError(number, "there are no locks here")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(UserError, match=r"cannot lock .*\.lock: there are no locks here"),
        locked(tmp_path / ".lock", wait),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    Path(tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot lock"), locked(tmp_path / "file" / ".lock"):
        pass
