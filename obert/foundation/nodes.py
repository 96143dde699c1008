"""The machines that jobs may run on: this one, or the nodes of a SLURM cluster."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from obert.foundation.accelerators import gpu_count
from obert.foundation.errors import UserError

THIS, SLURM, ANY = NODES = "this", "slurm", "any"


@dataclass(frozen=True)
class Node:
    """What one machine has; `memory_mb` in MB as SLURM counts them (2^20 bytes)."""

    cpus: int
    memory_mb: int
    gpus: int = 0


def granted_cores() -> int:
    """How many processors this process may use."""
    # The affinity mask is what a batch scheduler grants; not every platform has one.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> Node:
    """What this process may use of this machine."""
    import psutil

    return Node(granted_cores(), psutil.virtual_memory().total >> 20, gpu_count())


def slurm_nodes(partition: str | None = None) -> tuple[Node, ...]:
    """The kinds of nodes that a SLURM has, those that are down or busy too; empty where there is no SLURM.

    Args:
        partition: the only one to look at; several are separated by commas.

    Raises:
        UserError: SLURM does not answer, or has no such partition.
    """
    command = [
        "sinfo",
        "--noheader",
        "--exact",
        "--format=%c %m %G",
        *([f"--partition={partition}"] if partition else []),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return ()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"SLURM does not answer: {error}") from None
    if done.returncode:
        raise UserError(f"SLURM does not answer: {done.stderr.strip()}")
    nodes = tuple(dict.fromkeys(_node(line) for line in done.stdout.splitlines() if line.strip()))
    if partition and not nodes:
        raise UserError(f"SLURM has no partition '{partition}' with nodes: `sinfo` lists those that there are")
    return nodes


def _node(line: str) -> Node:
    """A node from sinfo's line `<cpus> <memory> <generic resources>`, such as `64 515000 gpu:a100:4(S:0-1)`."""
    cpus, memory, generic = line.split(maxsplit=2)
    # A "+" says that some nodes of the line have more.
    gpus = sum(int(count) for count in re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", generic))
    return Node(int(cpus.rstrip("+")), int(memory.rstrip("+")), gpus)
