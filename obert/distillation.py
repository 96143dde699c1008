"""Knowledge distillation from logits (Hinton et al. 2015; methods.md 9.9)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """T^2 * sum KL(teacher || student at temperature T) / number of items, averaged over the outputs.

    Items are all leading positions: the batch for classification and for question answering, whose distributions run
    over the last axis (classes, or positions of the sequence).

    Args:
        student, teacher: logits by output, each [..., classes].
    """
    losses = []
    for own, target in zip(student, teacher, strict=True):
        divergence = F.kl_div(
            F.log_softmax(own / temperature, dim=-1),
            F.log_softmax(target / temperature, dim=-1),
            log_target=True,
            reduction="sum",
        )
        losses.append(temperature**2 * divergence / own[..., 0].numel())
    return torch.stack(losses).mean()
