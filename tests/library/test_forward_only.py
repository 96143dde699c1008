"""A method that looks at what layers are given and takes no gradients, in the library and in the harness."""

import pytest
import torch
from torch import nn

from obert import prune
from obert.foundation import registry
from obert.foundation.errors import UserError

METHOD = '''
import torch
from pydantic import Field

from obert.pruning import Method


class InputNorms(Method):
    """|w| times the norm of its input over some examples."""

    small_settings = {"examples": 16}
    examples: int = Field(16, gt=0)

    def forward_examples(self):
        return self.examples

    def score(self, context):
        squares = {name: 0.0 for name in context.layers}
        handles = [
            layer.register_forward_hook(
                lambda _, inputs, __, name=name: squares.update({name: squares[name] + inputs[0].square().sum(0)})
            )
            for name, layer in context.layers.items()
        ]
        done = 0
        for batch in context.data.examples(self.examples, 8, context.draw):
            done += len(context.losses(batch))
            if done >= self.examples:
                break
        for handle in handles:
            handle.remove()
        return {name: weight.abs() * squares[name].sqrt() for name, weight in context.weights.items()}
'''


@pytest.fixture(autouse=True)
def method(tmp_path):
    """Installs the method as `input_norms`."""
    (tmp_path / "pruning").mkdir()
    (tmp_path / "pruning" / "input_norms.py").write_text(METHOD, encoding="utf-8")
    registry.use_folder(tmp_path)
    yield
    registry.use_folder(None)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.ReLU(), nn.Linear(24, 8))


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(3, 8, 16, generator=generator), torch.randint(8, (3, 8), generator=generator)
    return list(zip(inputs, labels, strict=True))


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def test_it_prunes_by_what_the_layers_are_given(model, batches):
    inputs = torch.cat([batch[0] for batch in batches[:2]])  # 16 examples
    model.eval()
    hidden = model[:3](inputs).detach()
    scores = torch.cat(
        [(model[0].weight.abs() * inputs.norm(dim=0)).flatten(), (model[3].weight.abs() * hidden.norm(dim=0)).flatten()]
    )
    modes = []

    def loss(model, batch):
        modes.append(torch.is_grad_enabled())
        return cross_entropy(model, batch)

    report = prune(model, batches, loss, 0.5, method="input_norms")
    kept = torch.cat([mask.flatten() for mask in report.masks.values()])
    assert kept.sum() == kept.numel() // 2
    assert scores[kept].min() >= scores[~kept].max()
    assert modes[:-1] == [False] * 3  # tried on the first batch, then two batches; at the end the zeros are looked for
    assert set(report.seconds) == {"forward passes", "solving", "total"}
    assert "forward passes" in str(report)


def test_a_loss_without_a_gradient_will_do(model, batches):
    with torch.no_grad():
        prune(model, batches, lambda m, b: cross_entropy(m, b).detach(), 0.5, method="input_norms")
    assert sum(int((layer.weight == 0).sum()) for layer in (model[0], model[3])) == 288


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"loss": lambda m, b: cross_entropy(m, b).mean()}, r"one value an example.*\(reduction='none'\)$"),
        ({"loss": None}, "give a function of the model and a batch"),
        ({"batches": []}, "there is none"),
        ({"examples": 25}, "examples 25: there are 24 examples"),
    ],
)
def test_mistakes_are_told_before_any_weight_changes(model, batches, arguments, expected):
    before = model[0].weight.detach().clone()
    with pytest.raises(UserError, match=expected):
        prune(**{"model": model, "batches": batches, "loss": cross_entropy, "method": "input_norms", **arguments})
    assert torch.equal(before, model[0].weight)
