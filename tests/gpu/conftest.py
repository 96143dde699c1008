"""The device of the tests that need a GPU."""

import os

import pytest
import torch


@pytest.fixture
def gpu() -> torch.device:
    """The GPU, or the CPU where a rehearsal says so."""
    if os.environ.get("OBERT_GPU_REHEARSAL"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return torch.device("cuda", 0)
