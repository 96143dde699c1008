"""What methods share that look at the gradients of the weights: how many, of which loss, and how often anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

from pydantic import Field
from torch import nn
from tqdm import tqdm

from obert.foundation.errors import UserError
from obert.pruning import Context, Method
from obert.second_order.gradients import (
    DenseGradients,
    Gradients,
    exact_float32,
    minibatch_gradients,
    per_example_gradients,
)


class GradientBased(Method):
    """A method that draws gradients in float32, in evaluation mode, at each pruning event.

    oBERT's reference code (SparseML, `GradSampler`) does the same: minibatches, hard labels, no dropout.
    """

    num_gradients: int = Field(1024, gt=0, description="m")
    gradients: Literal["per_example", "minibatch"] = Field(
        "minibatch", description="one gradient an example, or one a minibatch (the reference's way)"
    )
    gradient_batch_size: int = Field(16, gt=0, description="examples of a pass; the unit of gradients: minibatch")
    gradient_loss: Literal["task", "distillation"] = Field("task", description="hard labels, or the teacher's logits")
    recomputations: int = Field(1, gt=0, description="sub-steps of an event, with fresh gradients")
    recomputation_spacing: Literal["linear", "geometric"] = Field(
        "linear", description="even steps of sparsity, as SparseML, or even ratios of density, as M-FAC's code"
    )

    def targets(self, present: float, sparsity: float) -> tuple[float, ...]:
        """As many sub-steps as `recomputations` says."""
        count, present = self.recomputations, min(present, sparsity)  # rounding may have pruned one more than asked for
        fractions = [(k + 1) / count for k in range(count - 1)]
        if self.recomputation_spacing == "linear":
            between = [present + f * (sparsity - present) for f in fractions]
        else:
            between = [1 - (1 - present) * ((1 - sparsity) / (1 - present)) ** f for f in fractions]
        return (*between, sparsity)

    def sees_inputs(self) -> bool:
        """Per example: an example's gradient is made of a layer's inputs and the gradients of its outputs."""
        return self.gradients == "per_example"

    def gradient_examples(self) -> int:
        """Per example: one feature a gradient. Minibatches may meet a feature again in another company."""
        return self.num_gradients if self.gradients == "per_example" else self.gradient_batch_size

    def draw(self, context: Context, names: Iterable[str]) -> Iterator[tuple[str, Gradients | DenseGradients]]:
        """Gradients of some of the layers' weights, pass by pass; the same ones whenever the context is the same.

        A last pass with more gradients than are still needed is cut.

        Raises:
            UserError: a distillation loss without a teacher, or fewer gradients than asked for.
        """
        losses = context.losses if self.gradient_loss == "task" else context.distillation_losses
        if losses is None:
            raise UserError("gradient_loss: distillation needs a teacher, and this run has none")
        layers: dict[str, nn.Linear] = {name: context.layers[name] for name in names}
        if self.gradients == "per_example":
            compute, batches = partial(per_example_gradients, check=True), context.data.examples
        else:
            compute, batches = minibatch_gradients, context.data.minibatches
        done = 0
        device = next(iter(layers.values())).weight.device
        with tqdm(total=self.num_gradients, desc="gradients", leave=False) as bar:
            for batch in batches(self.num_gradients, self.gradient_batch_size, context.draw):
                count = 1
                with exact_float32(device):
                    for name, gradients in compute(layers, partial(losses, batch)):
                        needed = gradients.first(self.num_gradients - done)
                        count = len(needed)
                        yield name, needed
                if self.gradients == "per_example":
                    compute = per_example_gradients  # one batch is compared with autograd
                done += count
                bar.update(count)
                if done == self.num_gradients:
                    break
        if done != self.num_gradients:
            raise UserError(
                f"num_gradients {self.num_gradients}: the data gave {done}. Give it more, or ask for fewer gradients"
            )
