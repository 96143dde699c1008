"""The distillation loss against its formula of Hinton et al. (2015, section 2), written out, and its limits."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from obert.experiment.recipe import Distillation, Training
from obert.experiment.recipes import load_task
from obert.experiment.schema import Model
from obert.heads.distillation import distillation_losses
from obert.models.encoders import load_pretrained
from obert.training.features import Features
from obert.training.trainer import CompressionTrainer

DATA = Path(__file__).parents[1] / "data"


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


@pytest.mark.parametrize("n", [2, 5, 40])
def test_at_a_high_temperature_it_is_half_the_mean_squared_difference_of_centred_logits(n):
    """Hinton et al. 2015, equation 4: T^2 KL tends to sum((z - z')^2) / (2 n), its gradient to (z - z') / n."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 4, n, generator=generator, dtype=torch.float64)
    student.requires_grad_(True)
    losses = distillation_losses([student], [teacher], 1e5)
    losses.sum().backward()
    difference = (student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)).detach()
    torch.testing.assert_close(losses.detach(), (difference**2).sum(1) / (2 * n), rtol=1e-3, atol=0)
    torch.testing.assert_close(student.grad, difference / n, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def setting():
    """A batch of movie reviews, a student and another model as its teacher, as training has them; without dropout."""
    task = load_task("movie_reviews", {"source": str(DATA / "movie_reviews"), "max_length": 16}, "")

    def network(seed):
        torch.manual_seed(seed)  # of the head's weights
        return load_pretrained(Model(source=str(DATA / "tiny_bert")), task.head, ("0", "1"))

    student, tokenizer = network(0)
    teacher, _ = network(1)
    data = Features.encode(task, task.load()["train"].select(range(12)), tokenizer)
    return data, student.eval(), teacher.eval(), dict(data.padded(range(12)))


def loss_and_gradients(setting, distillation, batch=None, teacher=None):
    """What a step of training has, by weight."""
    data, student, other, own = setting
    training = Training(epochs=1, batch_size=12, learning_rate={"initial": 1e-4})
    trainer = CompressionTrainer(
        student,
        data,
        training,
        {"data order": 0, "dropout": 0},
        Path("unused"),
        distillation=distillation,
        teacher=teacher or other,
    )
    student.zero_grad()
    loss = trainer.compute_loss(student, batch or own)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


def test_hardness_0_trains_as_without_distillation(setting):
    (loss, expected), (same, found) = (
        loss_and_gradients(setting, distillation) for distillation in (None, Distillation(hardness=0, temperature=5.5))
    )
    assert torch.equal(loss, same) and expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert max(gradient.abs().max() for gradient in expected.values()) > 0


@pytest.mark.parametrize("hardness", [1.0, 0.5])
def test_hardness_1_ignores_labels(setting, hardness):
    batch = setting[-1]
    turned = {**batch, "labels": 1 - batch["labels"]}
    (loss, expected), (other, found) = (
        loss_and_gradients(setting, Distillation(hardness=hardness), chosen) for chosen in (batch, turned)
    )
    same = torch.equal(loss, other) and all(torch.equal(found[name], expected[name]) for name in expected)
    assert same == (hardness == 1)
    assert loss > 0 and max(gradient.abs().max() for gradient in expected.values()) > 0


def test_a_students_own_copy_teaches_it_nothing(setting):
    copy = deepcopy(setting[1])
    loss, gradients = loss_and_gradients(setting, Distillation(temperature=5.5), teacher=copy)
    assert abs(loss) < 1e-6
    assert max(gradient.abs().max() for gradient in gradients.values()) < 1e-6
