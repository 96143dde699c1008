"""A small model on random data, without a task, and a layer on its own."""

import pytest
import torch
from torch import nn

from obert.contracts.small_network import Indices, SmallNetwork
from obert.masks.patterns import UNSTRUCTURED
from obert.masks.selection import dense_masks
from obert.pruning import Context, TrainingHook


@pytest.fixture
def setting_of():
    """Makes the small network of a seed."""
    return SmallNetwork


class _Masked(nn.Module):
    """A layer that is called as the inside of a transformer is: the mask is another module's business."""

    def __init__(self, weight):
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        self.layer.weight.data = weight.clone()

    def forward(self, inputs, attention_mask=None):
        return self.layer(inputs)


@pytest.fixture
def layer_on():
    """Makes the context of a layer 'w' whose inputs [examples, tokens, in] are given, with their attention mask."""

    def make(weight, inputs, attention_mask=None, sparsity=0.5, pattern=UNSTRUCTURED, masks=None):
        model = _Masked(weight)

        def losses(chosen):
            mask = None if attention_mask is None else attention_mask[chosen]
            return model(inputs[chosen], attention_mask=mask).sum(dim=(1, 2))

        return Context(
            TrainingHook({"w": model.layer}),
            dense_masks({"w": weight}) if masks is None else masks,
            Indices(len(inputs)),
            losses,
            torch.Generator().manual_seed(0),
            pattern,
            targets={"w": sparsity},
            model=model,
        )

    return make


@pytest.fixture
def correlated():
    """Makes a weight [out, in] and inputs [16, 8, in] with correlated features, float64."""

    def make(out, width, seed=0):
        generator = torch.Generator().manual_seed(seed)
        mixed = torch.randn(width, width, generator=generator, dtype=torch.float64)
        inputs = torch.randn(16, 8, width, generator=generator, dtype=torch.float64) @ (mixed + torch.eye(width))
        return torch.randn(out, width, generator=generator, dtype=torch.float64), inputs

    return make
