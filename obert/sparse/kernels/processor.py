"""What the processor that kernels are compiled for can do; NUMBA_CPU_FEATURES changes both."""

from __future__ import annotations

from llvmlite.binding import get_host_cpu_name
from numba.core import config
from numba.core.codegen import get_host_cpu_features


def _features() -> set[str]:
    """Names that LLVM has for them, of those that Numba was told or found, such as avx2."""
    text = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return {name[1:] for name in text.split(",") if name.startswith("+")}


FEATURES = _features()
REGISTERS = 32 if "avx512f" in FEATURES else 16  # of vectors; half of ARM's hold what x86 takes from memory
_NAME = config.CPU_NAME or get_host_cpu_name()
SHUFFLES = _NAME.startswith("znver")  # are they free beside FMA? Else loads that spread a number are no worse.
REGISTER = 16 if "avx512f" in FEATURES else 8 if "avx2" in FEATURES else 4  # float32 lanes of one


def lanes() -> int:
    """How many tokens a tile has where there are enough of them."""
    return 64 if "avx512f" in FEATURES else 32


def _dot() -> str:
    if {"avx512vnni", "avx512bw"} <= FEATURES:
        return "vnni512"
    if "avxvnni" in FEATURES:
        return "vnni256"
    return "pmaddwd" if "avx2" in FEATURES else "plain"


dot = _dot()  # how 8-bit integers are multiplied
