"""What the processor that kernels are compiled for can do."""

from __future__ import annotations

import llvmlite.binding as llvm
from numba.core import config

_NAMES = {"cascadelake": "vnni512", "alderlake": "vnni256", "haswell": "pmaddwd", "x86-64": "plain"}


def _dot() -> str:
    if config.CPU_NAME:
        return _NAMES[config.CPU_NAME]
    features = llvm.get_host_cpu_features()
    if features.get("avx512vnni"):
        return "vnni512"
    if features.get("avxvnni"):
        return "vnni256"
    return "pmaddwd" if features.get("avx2") else "plain"


dot = _dot()
