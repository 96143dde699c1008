"""What is chosen agrees with what Numba compiles for."""

import importlib.util

import pytest
from llvmlite.binding import get_host_cpu_features
from numba.core import config

from obert.sparse.kernels import processor


def loaded(monkeypatch, name, features):
    """A copy of the module as it is where Numba was told these things."""
    monkeypatch.setattr(config, "CPU_NAME", name)
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    spec = importlib.util.spec_from_file_location("copy", processor.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "features", "lanes", "dot", "register", "shuffles"),
    [
        ("znver4", "+avx2,+avx512f,+avx512bw,+avx512vnni", 64, "vnni512", 16, True),
        ("skylake-avx512", "+avx2,+avx512f,+avx512bw,-avx512vnni", 64, "pmaddwd", 16, False),
        ("alderlake", "+avx2,+avxvnni", 32, "vnni256", 8, False),
        ("znver3", "+avx2,-avx512f", 32, "pmaddwd", 8, True),
        ("generic", "", 32, "plain", 4, False),
    ],
)
def test_choices_follow_what_numba_was_told(monkeypatch, name, features, lanes, dot, register, shuffles):
    found = loaded(monkeypatch, name, features)
    assert (found.lanes(), found.dot, found.REGISTER, found.SHUFFLES) == (lanes, dot, register, shuffles)


def test_else_they_follow_this_processor(monkeypatch):
    features = {name for name, present in get_host_cpu_features().items() if present}
    assert features == loaded(monkeypatch, None, None).FEATURES
