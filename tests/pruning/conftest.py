"""A small model on random data, without a task."""

import pytest
import torch
from torch import nn

from obert.masks.selection import dense_masks
from obert.pruning import Context, TrainingHook, prune_event


class Indices:
    """Minibatches as indices of examples, in order."""

    def __init__(self, size):
        self.size = size

    def examples(self, count, batch_size, draw):
        return (batch % self.size for batch in (torch.arange(count) + draw * count).split(batch_size))

    def minibatches(self, count, batch_size, draw):
        return self.examples(count * batch_size, batch_size, draw)


class Setting:
    """A small network on random data, the data drawn from a seed."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).eval()
        self.layers = {"0.weight": self.model[0], "2.weight": self.model[2]}
        self.inputs = torch.randn(64, 5, 6, generator=generator)
        self.labels = torch.randint(0, 3, (64,), generator=generator)
        self.masks = dense_masks({name: layer.weight for name, layer in self.layers.items()})
        self.hook = None

    def train(self, method, steps):
        """Steps of gradient descent with the method's hook attached, masks held as at the target sparsity."""
        if self.hook is None:
            self.hook = method.training_hook(self.model, self.layers)
        groups = self.hook.parameter_groups()
        learned = {id(p) for group in groups for p in group["params"]}
        weights = [p for p in self.model.parameters() if id(p) not in learned]
        optimizer = torch.optim.SGD([{"params": weights}, *groups], lr=0.1)
        for _ in range(steps):
            logits = self.model(self.inputs).mean(1)
            optimizer.zero_grad()
            (nn.functional.cross_entropy(logits, self.labels) + (self.hook.penalty(1.0) or 0.0)).backward()
            optimizer.step()
            self.hook.after_step(self.masks, at_target=True)
        return self

    def context(self) -> Context:
        def losses(chosen):
            logits = self.model(self.inputs[chosen]).mean(1)
            return nn.functional.cross_entropy(logits, self.labels[chosen], reduction="none")

        hook = self.hook or TrainingHook(self.layers)
        return Context(hook, self.masks, Indices(64), losses, torch.Generator().manual_seed(0))

    def prune(self, method, sparsity):
        """One event, after the steps that the method needs."""
        if self.hook is None:
            self.train(method, method.steps_needed())
        self.masks = prune_event(method, self.context(), sparsity).masks
        self.hook.after_event(self.masks, None)
        return self


@pytest.fixture
def indices():
    """Minibatches of 32 examples' indices."""
    return Indices(32)


@pytest.fixture
def setting_of():
    """Makes the small setting of a seed."""
    return Setting
