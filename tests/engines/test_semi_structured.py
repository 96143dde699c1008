"""What the 2:4 engine decides and measures without a GPU. The contract suite runs its kernels where there is one."""

import time
from pathlib import Path

import pytest
import torch
from samples import HEADS, with_new_head
from torch import nn

from obert.engines import ModelFiles
from obert.engines.semi_structured import SemiStructured, is_2_4, seconds_of_layers
from obert.models.encoders import load_tokenizer, prunable_weights, save

TINY = Path(__file__).parents[1] / "data" / "tiny_bert"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 0, 0, 2, 0, 3, 4, 0]], True),
        ([[1, 0, 0, 0, 0, 0, 0, 0]], True),
        ([[1, 2, 3, 0, 0, 0, 0, 4]], False),  # as many zeros, not in each group
        ([[0, 0, 1, 1, 0, 0]], False),  # rows of six
        ([[0, 0], [1, 1]], False),  # a group does not go over the end of a row
    ],
)
def test_the_pattern_is_recognised(rows, expected):
    assert is_2_4(torch.tensor(rows, dtype=torch.float32)) is expected


@pytest.mark.parametrize("kind", ["dense", "2:4", "unstructured"])
def test_only_a_dense_model_and_2_4_are_timed(kind, tmp_path):
    torch.manual_seed(0)
    network = with_new_head(TINY, HEADS["sequence_classification"])
    weights = prunable_weights(network)
    last = list(weights)[-1]
    with torch.no_grad():
        for weight in weights.values() if kind != "dense" else ():
            weight.view(-1, 4)[:, 1:3] = 0
        if kind == "unstructured":
            weights[last].view(-1)[:4] = 1
    save(network, load_tokenizer(TINY), tmp_path)
    reason = SemiStructured.unfit_reason(ModelFiles(tmp_path / "none.onnx", tmp_path, HEADS["sequence_classification"]))
    assert (reason is None) == (kind != "unstructured")
    if reason:
        assert last in reason


class _Sleep(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x


def test_the_time_of_layers_is_theirs_alone():
    """Two layers that take 4 and 2 ms, in a run that takes 20 ms more."""
    network = nn.Sequential(_Sleep(0.004), _Sleep(0.02), _Sleep(0.002))
    layers = {"first": network[0], "last": network[2]}
    found = seconds_of_layers(layers, lambda: network(torch.ones(2)))
    assert 0.006 <= found < 0.012
