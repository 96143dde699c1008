"""A network of a hundred weights on random data, to prune and train in milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from obert.library.prune import prune
from obert.library.report import PruningReport
from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.masks.selection import dense_masks
from obert.pruning import Context, Method, Proposal, TrainingHook, prune_event

BATCHES = 256  # that the library is given: more than any method draws


class Indices:
    """Minibatches as indices of examples, in order; from the first again after the last."""

    def __init__(self, size: int):
        self.size = size

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Tensor]:
        """`count` indices, in minibatches."""
        for batch in (torch.arange(count) + draw * count).split(batch_size):
            yield batch % self.size

    def minibatches(self, count: int, batch_size: int, draw: int) -> Iterator[Tensor]:
        """`count` minibatches."""
        return self.examples(count * batch_size, batch_size, draw)


class SmallNetwork:
    """Three linear layers, the first two prunable (8 x 6 and 7 x 8), on 64 examples of five tokens in three classes.

    Attributes:
        model: in evaluation mode.
        layers, masks: of the prunable weights, by name.
        hook: the method's, once it has trained or pruned.
        data: what methods drew from.
        evaluations: losses that were asked for, in examples, by whether gradients were on.
    """

    def __init__(self, seed: int = 0, pattern: AnyPattern = UNSTRUCTURED):
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).eval()
        self.layers = {"0.weight": self.model[0], "2.weight": self.model[2]}
        self.inputs = torch.randn(64, 5, 6, generator=generator)
        self.labels = torch.randint(0, 3, (64,), generator=generator)
        self.masks = dense_masks({name: layer.weight for name, layer in self.layers.items()})
        self.pattern = pattern
        self.hook: TrainingHook | None = None
        self.data = Indices(64)
        self.evaluations: Counter[bool] = Counter()

    def train(self, method: Method, steps: int) -> SmallNetwork:
        """Steps of gradient descent with the method's hook attached, masks held as at the target sparsity."""
        if self.hook is None:
            self.hook = method.training_hook(self.model, self.layers, self.pattern)
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

    def losses(self, chosen: Tensor) -> Tensor:
        """The loss of each of the examples with these indices."""
        self.evaluations[torch.is_grad_enabled()] += len(chosen)
        logits = self.model(self.inputs[chosen]).mean(1)
        return nn.functional.cross_entropy(logits, self.labels[chosen], reduction="none")

    def context(self) -> Context:
        """What a method may look at, with a fresh generator: the same whenever the network is."""
        hook = self.hook or TrainingHook(self.layers)
        generator = torch.Generator().manual_seed(0)
        targets = dict.fromkeys(self.layers, self.pattern.largest_sparsity / 2)
        return Context(
            hook, self.masks, self.data, self.losses, generator, self.pattern, targets=targets, model=self.model
        )

    @torch.no_grad()
    def proposal(self, method: Method) -> Proposal:
        """What the method says, with gradients off, as in an event."""
        return method.propose(self.context())

    def prune(self, method: Method, sparsity: float) -> SmallNetwork:
        """One event, after the steps that the method needs."""
        if self.hook is None:
            self.train(method, method.steps_needed())
        self.masks = prune_event(method, self.context(), sparsity).masks
        self.hook.after_event(self.masks, None)
        return self

    def prune_in_the_library(self, method: Method, sparsity: float) -> PruningReport:
        """`obert.prune` on the same examples, in batches of the method's size."""
        size = getattr(method, "gradient_batch_size", 8)
        batches = list(self.data.minibatches(BATCHES, size, 0))
        scope = [name.removesuffix(".weight") for name in self.layers]
        return prune(self.model, batches, lambda _, chosen: self.losses(chosen), sparsity, method, scope=scope)

    def zeros(self) -> int:
        """Weights of the prunable layers that are exactly zero."""
        return sum(int((layer.weight == 0).sum()) for layer in self.layers.values())

    def weights(self) -> dict[str, Tensor]:
        """Copies of the weights that the layers use, by name."""
        return {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
