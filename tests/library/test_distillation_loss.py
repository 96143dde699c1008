"""The teacher's part of the loss, in a loop of one's own."""

import pytest
import torch

from obert import distillation_loss
from obert.foundation.errors import UserError


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)


def test_it_is_the_cross_entropy_with_the_teacher_but_for_its_entropy(logits):
    student, teacher = logits
    soft = (teacher / 3).softmax(1)
    expected = 9 * (-(soft * (student / 3).log_softmax(1)).sum(1) + (soft * soft.log()).sum(1)).mean()
    assert distillation_loss(student, teacher, temperature=3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_hardness_shares_it_with_the_tasks_own(logits):
    task = torch.tensor([1.0, 3.0])
    whole = distillation_loss(*logits).item()
    assert distillation_loss(*logits, task, hardness=0.25).item() == pytest.approx(0.75 * 2 + 0.25 * whole)
    assert distillation_loss(*logits, task, hardness=0.0).item() == pytest.approx(2)


def test_the_teacher_gets_no_gradient_and_a_student_that_agrees_has_no_loss(logits):
    student, teacher = (x.requires_grad_() for x in logits)
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert distillation_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "expected"),
    [
        ((6, 5), (6, 4), {}, r"\[6, 5\], the teacher's \[6, 4\]"),
        ((6, 1), (6, 1), {}, "mean squared error"),
        ((6,), (6,), {}, r"\[batch, \.\.\., classes\]"),
        ((6, 5), (6, 5), {"hardness": 0.5}, "leaves the task's own loss 0.5"),
        ((6, 5), (6, 5), {"hardness": 2}, "hardness 2"),
        ((6, 5), (6, 5), {"temperature": 0}, "temperature 0"),
    ],
)
def test_mistakes_are_told(student, teacher, options, expected):
    with pytest.raises(UserError, match=expected):
        distillation_loss(torch.zeros(student), torch.zeros(teacher), **options)
