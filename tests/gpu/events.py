"""Small pruning events of every method, on any device."""

from pathlib import Path

import torch
from samples import with_new_head

from obert.experiment.recipes import load_task
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.patterns import parse_pattern
from obert.masks.selection import dense_masks
from obert.models.encoders import keep_layers, prunable_layers, prunable_weights
from obert.pruning import Context, prune_event

TINY = Path(__file__).parents[1] / "data" / "tiny_bert"
SMALL = {
    "mfac": {"num_gradients": 8, "gradient_batch_size": 4, "recomputations": 2},
    "obd": {"num_gradients": 16, "gradient_batch_size": 8},
    "obert": {"num_gradients": 16, "gradients": "per_example", "gradient_batch_size": 8, "fisher_block_size": 48},
    "optimal_brain_compression": {"examples": 16, "dampening": 0.1},
    "platon": {"window": 2},
    "sparsegpt": {"examples": 16, "dampening": 0.1},
    "wanda": {"examples": 16},
    "woodfisher": {"num_gradients": 40, "gradient_batch_size": 2, "fisher_block_size": 64},
}
OBERT = {
    "independent": ("unstructured", {"solver": "independent"}),
    "joint": ("2:4", {"solver": "joint"}),
    "recursion": ("unstructured", {"accumulation": "recursion", "dampening": 1e-4}),
    "several passes": ("1x4", {"fisher_memory": 2e-3, "recomputations": 2}),
    "minibatches": ("unstructured", {"gradients": "minibatch", "num_gradients": 6, "fisher_block_size": 64}),
}


class Tokens:
    """Minibatches of random tokens and labels, made on the CPU and moved."""

    def __init__(self, device):
        self.device = device

    def examples(self, count, batch_size, draw):
        return self.minibatches(-(-count // batch_size), batch_size, draw)

    def minibatches(self, count, batch_size, draw):
        generator = torch.Generator().manual_seed(draw)
        for _ in range(count):
            tokens = torch.randint(5, 280, (batch_size, 12), generator=generator)
            labels = torch.randint(2, (batch_size,), generator=generator)
            batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
            yield {name: value.to(self.device) for name, value in batch.items()}


def masks_of(method, place, device, pattern="unstructured"):
    """Masks and weights after two events, with steps of training before each.

    Args:
        place: puts a model on the device.
    """
    torch.manual_seed(0)
    network = with_new_head(TINY, SequenceClassification())
    keep_layers(network, (0,))
    place(network)
    layers, pattern = prunable_layers(network), parse_pattern(pattern)
    task, data = load_task("sst2", {"source": str(TINY)}, "test"), Tokens(device)
    hook = method.training_hook(network, layers, pattern)
    learned = [p for group in hook.parameter_groups() for p in group["params"]]
    others = [p for p in network.parameters() if not any(p is own for own in learned)]
    optimizer = torch.optim.AdamW([{"params": others}, *hook.parameter_groups()], lr=1e-3)
    masks = dense_masks(hook.weights)

    def losses(batch):
        return task.head.losses(task.head.forward(network, batch), batch)

    for event, sparsity in enumerate((0.3, 0.5)):
        for batch in data.minibatches(3, 4, 10 + event):
            optimizer.zero_grad()
            loss, penalty = losses(batch).mean(), hook.penalty(0.5)
            (loss if penalty is None else loss + penalty).backward()
            optimizer.step()
            hook.after_step(masks, at_target=event > 0)
        context = Context(hook, masks, data, losses, torch.Generator().manual_seed(1), pattern, model=network)
        masks = prune_event(method, context, sparsity).masks
        hook.after_event(masks, optimizer)
    hook.finish()
    return masks, prunable_weights(network)
