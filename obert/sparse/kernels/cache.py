"""Where compiled kernels are kept: a folder of its own for each state of their sources and of the compiler.

Numba looks at the file of a function alone, and not at those of the functions that it calls. So the folder's name holds
a digest of all of the engine's sources. Numba itself tells processors apart.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import njit

from obert.sparse.kernels.bounds import CHECKED

HERE = Path(__file__).parents[1]


@cache
def folder() -> Path:
    """The folder, made if it is not there: under NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache, or a temporary one."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {platform.python_version()}".encode())
    for source in sorted(HERE.rglob("*.py")):
        digest.update(source.relative_to(HERE).as_posix().encode() + source.read_bytes())
    root = numba.config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    chosen = Path(root) / "obert" / "sparse" / digest.hexdigest()[:16]
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen):
            pass
    except OSError as error:
        chosen = Path(tempfile.mkdtemp(prefix="obert-sparse-"))
        print(f"compiled kernels are not kept: {error}", file=sys.stderr)
    return chosen


def jit(function: Callable[..., Any]) -> Any:
    """A kernel: it raises nothing, divides as the processor does, runs beside other threads, and is kept compiled."""
    before = numba.config.CACHE_DIR
    try:
        if not CHECKED:  # addresses of this process are in that code
            numba.config.CACHE_DIR = str(folder())
        options = {"nogil": True, "cache": not CHECKED, "error_model": "numpy", "boundscheck": False}
        return njit(**options, no_cfunc_wrapper=True)(function)  # which only C would call, and takes time to make
    finally:
        numba.config.CACHE_DIR = before


# What kernels alone call: without what Python would call it by, it is compiled in four fifths of the time.
inner = njit(nogil=True, error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@cache
def announce(what: str) -> None:
    """Say that kernels of some kind are compiled, if it is for the first time on this machine."""
    mark = folder() / f"{numba.config.CPU_NAME or platform.machine()} {what}"
    if CHECKED or mark.exists():
        return
    print(f"compiling the sparse engine's kernels once for this machine: {what}", file=sys.stderr, flush=True)
    mark.touch()
