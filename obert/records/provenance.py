"""Where a result comes from: a hash of the code it depends on, the commit, package versions and hardware."""

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from obert.foundation.registry import PACKAGE

PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "datasets", "evaluate", "numpy", "safetensors", "onnx",
    "onnxruntime", "openvino",
)  # fmt: skip


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, cwd=PACKAGE.parent)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment() -> dict[str, Any]:
    """Commit, versions and hardware of this process."""
    import cpuinfo
    import psutil
    import torch

    cpu = cpuinfo.get_cpu_info()
    interesting = (
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512vnni",
        "avx512_bf16",
        "avx_vnni",
        "amx_int8",
        "asimd",
        "sve",
    )
    changes = _git("status", "--porcelain", "--untracked-files=no")
    installed = {name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)}
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed,
        "cpu": cpu.get("brand_raw", platform.processor()),
        "isa_flags": sorted(set(cpu.get("flags", [])) & set(interesting)),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
