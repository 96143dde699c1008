"""Knowledge distillation from logits (Hinton, Vinyals, Dean 2015, section 2; oBERT, sections 2 and A.5)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def divergences(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student at temperature T) of distributions over the last axis, shape [batch, ...].

    The factor T^2 keeps the gradient's size when T changes (Hinton et al. 2015, section 2).

    Args:
        student, teacher: logits, each [batch, ..., classes].
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        log_target=True,
        reduction="none",
    )
    return temperature**2 * divergence.sum(dim=-1)


def distillation_losses(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """The divergence of each example, averaged over the outputs, shape [batch].

    Distributions run over the last axis: classes, or positions of the sequence for question answering. An example with
    several of them counts their mean.

    Args:
        student, teacher: logits by output, each [batch, ..., classes].
    """
    losses = [
        divergences(own, target, temperature).reshape(len(own), -1).mean(dim=1)
        for own, target in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).mean(dim=0)
