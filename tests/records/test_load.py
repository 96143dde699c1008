"""What a machine does beside a measurement."""

import subprocess
import sys

import pytest

from obert.records.load import Load, is_busy


@pytest.mark.parametrize(("processes", "cores", "busy"), [(1.0, 2, False), (1.1, 2, True), (0.6, None, True)])
def test_half_a_process_a_core_is_the_most(processes, cores, busy):
    assert is_busy(processes, cores) == busy


def test_a_process_that_computes_is_seen():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found = Load.now(0.5)
    finally:
        busy.kill()
        busy.wait()
    assert 0.5 < found.in_use <= found.cores
    assert found.average >= 0
