"""Where a result comes from: commit, package versions and hardware."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from obert.foundation.registry import PACKAGE

PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "datasets", "evaluate", "numpy", "safetensors", "onnx",
    "onnxruntime", "openvino",
)  # fmt: skip
# Instructions that decide how fast a model runs, or whether an engine runs it; by the names that Linux has for them.
INSTRUCTIONS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimd", "sve"}
CPUINFO = Path("/proc/cpuinfo")


def environment() -> dict[str, Any]:
    """Commit, versions and hardware of this process.

    To be taken at a run's start, since files may be edited and packages replaced while it goes on; it takes some
    hundredths of a second.
    """
    import psutil
    import torch

    cpu, flags = _processor()
    return {
        **git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "cpu": cpu,
        "isa_flags": sorted(flags & INSTRUCTIONS),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_state() -> dict[str, Any]:
    """The commit of this package's files, and whether they, the configurations or the workflow differ from it; None for
    both if git does not have them."""
    # Installed in an environment that lies in a repository of another project, they are not that one's.
    if not _said("git", "ls-files", "--", "__init__.py"):
        return {"git_commit": None, "git_dirty": None}
    # A new file of code or configuration may change a run; results, data and documents do not.
    counted = [f":(top){name}" for name in (PACKAGE.name, "configs", "workflow", "Snakefile")]
    lines = (_said("git", "status", "--porcelain=v2", "--branch", "--", *counted) or "").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    return {
        "git_commit": commits[0] if commits else None,
        "git_dirty": any(not line.startswith("#") for line in lines) if commits else None,
    }


def _said(*command: str) -> str | None:
    """What a command writes, run in this package's folder; None if it fails or there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=PACKAGE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> tuple[str, set[str]]:
    """Its name, and the instructions that it has beyond the common ones where the system is Linux."""
    fields: dict[str, str] = {}
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    flags = fields.get("flags") or fields.get("features", "")  # on x86 and on ARM
    name = fields.get("model name") or _said("sysctl", "-n", "machdep.cpu.brand_string")  # on Linux and on macOS
    if not name:  # on ARM
        found = re.search(r"Model name:\s*(.+)", _said("lscpu") or "")
        name = found[1] if found else platform.processor()
    return name, set(flags.split())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
