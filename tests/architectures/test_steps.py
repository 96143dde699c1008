"""A training step of every architecture waits for nothing that a device computes."""

import pytest
from architectures.models import ALIKE, NAMES, make
from waiting import small, start, waits_of


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in NAMES])
def test_a_step_of_an_architecture_waits_for_nothing(name, root, tmp_path):
    source = str(make(name, tmp_path / "model"))
    assert waits_of(*start(source=source), small("magnitude"), tmp_path / "run") == []
