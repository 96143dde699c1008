"""Learning from a teacher's outputs, in the caller's own loop."""

from __future__ import annotations

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.heads.distillation import distillation_losses


def distillation_loss(
    student: Tensor, teacher: Tensor, task: Tensor | None = None, hardness: float = 1.0, temperature: float = 2.0
) -> Tensor:
    """(1 - h) * task + h * T^2 KL(teacher || student at temperature T), means over the batch (Hinton et al. 2015).

    Args:
        student, teacher: logits of the same batch, [batch, ..., classes]. No gradient goes to the teacher's.
        task: the task's own loss, one number or one an example; needed where `hardness` is below 1.
        hardness: h, the share of the teacher's loss.
        temperature: T, by which both models' logits are divided.

    Raises:
        UserError: shapes that differ, or a single class, whose distribution says nothing; a hardness outside [0, 1], or
            below 1 without the task's loss; a temperature that is not above 0.
    """
    if student.shape != teacher.shape or student.dim() < 2:
        raise UserError(
            f"logits: the student's are {list(student.shape)}, the teacher's {list(teacher.shape)}; both must be "
            "[batch, ..., classes]"
        )
    if student.shape[-1] == 1:
        raise UserError("logits: of one output there is no distribution. Take the mean squared error of the outputs")
    if not 0 <= hardness <= 1 or temperature <= 0:
        raise UserError(f"hardness {hardness}, temperature {temperature}: give one in [0, 1], and one above 0")
    if hardness < 1 and task is None:
        raise UserError(f"hardness {hardness} leaves the task's own loss {1 - hardness:g} of the whole: give `task`")
    soft = distillation_losses([student.float()], [teacher.detach().float()], temperature).mean()
    own = torch.zeros_like(soft) if hardness == 1 else (1 - hardness) * task.mean()
    return own + hardness * soft
