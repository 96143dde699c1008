"""Memory that is free, that was used, and that a job may use."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Allowance:
    """What this process and those beside it in a job may use, all in bytes.

    Attributes:
        limit: of all of them together.
        used: now, without the cache of files, which gives way.
        peak: the most so far, cache included; None where nobody counts.
        killed: how many processes were ended for lack of memory.
    """

    limit: int
    used: int
    peak: int | None = None
    killed: int = 0


def allowance() -> Allowance | None:
    """The narrowest limit on this process's memory: of its control groups, or else of its SLURM job; None if there is
    none. SLURM, containers and Kubernetes all limit jobs by control groups; a SLURM that does not, counts instead."""
    paths = list(_groups())
    groups = [found for path in paths if (found := _of_group(path)) is not None]
    if groups:
        narrowest = min(groups, key=lambda group: group.limit - group.used)
        # Version 1 counts them in the group of the process, whichever group's limit it was.
        return replace(narrowest, killed=max(map(_killed, paths)))
    asked = os.environ.get("SLURM_MEM_PER_NODE", "")
    return Allowance(int(asked) << 20, int(peak_memory_mb() * 1e6)) if asked.isdigit() and int(asked) else None


def _groups() -> Iterator[Path]:
    """Folders of the control groups that count this process's memory, from its own upwards."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = GROUPS
        elif "memory" in controllers.split(","):
            root = GROUPS / "memory"
        else:
            continue
        inner = root / path.lstrip("/")
        yield inner
        for folder in inner.parents:  # up to the root, which is what a container sees of its own group
            if not folder.is_relative_to(root):
                break
            yield folder


def _of_group(folder: Path) -> Allowance | None:
    """What a control group may use (cgroup v2 or v1); None if it has no limit."""
    for limit, peak, used in (
        ("memory.max", "memory.peak", "anon"),
        ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "total_rss"),
    ):
        try:
            text = (folder / limit).read_text(encoding="ascii").strip()
            counted = _counts(folder / "memory.stat")
        except OSError:
            continue
        if text == "max" or int(text) >= 1 << 60:  # v1 writes the largest number that it has
            return None
        most = int((folder / peak).read_text(encoding="ascii")) if (folder / peak).is_file() else None
        return Allowance(int(text), counted.get(used, 0), most)
    return None


def _killed(folder: Path) -> int:
    """How many processes of a control group were ended for lack of memory."""
    files = (folder / name for name in ("memory.events", "memory.oom_control"))
    return max((_counts(path).get("oom_kill", 0) for path in files if path.is_file()), default=0)


def _counts(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2}


def free_memory(device: Any) -> int:
    """Bytes that are free on a torch device, or in this machine's memory for this job."""
    import psutil
    import torch

    if device.type != "cuda":
        free, own = psutil.virtual_memory().available, allowance()
        return free if own is None else min(free, max(own.limit - own.used, 0))
    # What torch's allocator holds and does not use is free for torch, though not for the driver.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
