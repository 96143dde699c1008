"""The machines that jobs may run on, as `sinfo` lists them."""

import pytest

from obert.foundation.errors import UserError
from obert.foundation.nodes import Node, slurm_nodes, this_machine

LINES = """64 515000 gpu:a100:4(S:0-1)
128+ 1031000+ (null)
32 257000 gpu:2,shard:8
16 64000 gpu:v100:2,gpu:a100:1
"""


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Puts a `sinfo` on the path that runs these lines of shell."""

    def write(lines):
        (tmp_path / "sinfo").write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / "sinfo").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return write


def test_nodes_are_read(sinfo):
    sinfo(f"cat <<END\n{LINES}END")
    assert slurm_nodes() == (Node(64, 515000, 4), Node(128, 1031000), Node(32, 257000, 2), Node(16, 64000, 3))


def test_a_partition_without_nodes_is_named(sinfo):
    sinfo("")
    assert slurm_nodes() == ()
    with pytest.raises(UserError, match="no partition 'shrot'"):
        slurm_nodes("shrot")


def test_a_slurm_that_does_not_answer_says_why(sinfo):
    sinfo("echo 'cannot reach the controller' >&2; exit 1")
    with pytest.raises(UserError, match="cannot reach the controller"):
        slurm_nodes()


def test_no_slurm_has_no_nodes(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_nodes() == ()
    assert this_machine().cpus >= 1 and this_machine().gpus == 0 and this_machine().memory_mb > 100
