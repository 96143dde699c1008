"""The distillation loss against its formula of Hinton et al. (2015, section 2), written out."""

import math

import pytest
import torch

from obert.heads.distillation import distillation_losses


def by_hand(student, teacher, temperature):
    total = 0.0
    for own, target in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in target]
        q = [math.exp(x / temperature) for x in own]
        total += sum(a / sum(p) * (math.log(a / sum(p)) - math.log(b / sum(q))) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.5])
def test_formula(temperature):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    losses = distillation_losses([student], [teacher], temperature)
    for i in range(4):
        one = slice(i, i + 1)
        assert losses[i].item() == pytest.approx(by_hand(student[one], teacher[one], temperature), rel=1e-5)


def test_several_outputs_are_averaged():
    generator = torch.Generator().manual_seed(0)
    start, end, other = (torch.randn(4, 9, generator=generator) for _ in range(3))
    both = distillation_losses([start, end], [other, other], 2.0)
    single = [distillation_losses([x], [other], 2.0) for x in (start, end)]
    torch.testing.assert_close(both, torch.stack(single).mean(dim=0))


def test_zero_where_student_equals_teacher():
    logits = torch.randn(4, 3)
    assert distillation_losses([logits], [logits], 2.0).abs().max() < 1e-6
