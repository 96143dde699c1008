"""Where a result comes from: a hash of the code it depends on, the commit, package versions and hardware."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from obert.registry import PACKAGE, source_file

PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "datasets", "evaluate", "numpy", "safetensors", "onnx",
    "onnxruntime", "openvino",
)  # fmt: skip


@cache
def _parsed(path: Path) -> tuple[str, frozenset[Path]]:
    """A file's syntax tree (so comments and formatting do not count), and the files of this package it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return ast.dump(tree), frozenset(filter(None, map(_module_file, imported)))


def _module_file(module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_files(roots: Iterable[Path]) -> list[Path]:
    """The files of this package that `roots` reach through import statements, themselves included."""
    pending, reached = list(roots), set()
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending.extend(_parsed(path)[1])
    return sorted(reached)


def code_hash(stage: str, **extensions: str | Iterable[str] | None) -> str:
    """Hash of the code that a stage runs: its file, the extensions named, and whatever they import.

    Extensions are found by name, not by import statement, so a stage depends only on those it is given.

    Args:
        stage: a file of `obert/stages/`.
        extensions: names by kind, e.g. `pruning="obert"`, `tables=["leaderboard"]`.
    """
    roots = [PACKAGE / "stages" / f"{stage}.py"]
    for kind, chosen in extensions.items():
        chosen = [chosen] if isinstance(chosen, str) else chosen or []
        roots.extend(source_file(kind, name) for name in chosen)
    digest = hashlib.sha256()
    for path in code_files(roots):
        digest.update(f"{path.relative_to(PACKAGE)}\0{_parsed(path)[0]}\0".encode())
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def free_memory(device: Any) -> int:
    """Bytes that are free on a torch device, or in this machine's memory."""
    import psutil
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
