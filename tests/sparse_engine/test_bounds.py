"""The debug build, which looks up each address that a kernel computes: whole models, and that it finds a wrong one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
import numpy as np
from obert.sparse.kernels.bounds import OutOfBounds
from obert.sparse.execution.interpreter import I_OUT
from obert.sparse.model import SparseModel

rng = np.random.default_rng(0)
for path in sys.argv[1:]:
    for threads, lengths in ((1, [7]), (2, [9, 1, 14])):
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(int)
        model = SparseModel.load(path, threads)
        model(input_ids=rng.integers(5, 100, mask.shape) * mask, attention_mask=mask)
model._layout.instructions[3, I_OUT // 8] += 2_000_000
try:
    model(input_ids=np.ones((1, 5), int))
except OutOfBounds as error:
    print(error)
"""


@pytest.mark.slow
def test_no_kernel_reaches_beyond_the_engines_arrays(exported):
    """Tiles of 16 tokens alone: each kind of tile is compiled anew, and the kernels' own tests have the others."""
    files = exported("mobilebert", "sequence_classification")
    found = subprocess.run(
        [sys.executable, "-c", CODE, *files],
        env=os.environ | {"OBERT_SPARSE_BOUNDS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert "a kernel reached for address" in found.stdout
