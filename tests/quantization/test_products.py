"""Products of computed tensors, found in modules that are called as no model calls them, and rounded by hand."""

import pytest
import torch
from torch import nn

from obert.foundation.errors import UserError
from obert.quantization.fake import QuantizedLinear, quantize, quantize_layer
from obert.quantization.products import find_products, round_products
from obert.quantization.quantizers import ActivationQuantizer, freeze_scales


class Attention(nn.Module):
    """Scores of two products, softmax, dropout, and a product after it."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.eye(4))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        scores = torch.matmul(x, x.transpose(1, 2)) + x.bmm(2 * x.mT)
        self.probabilities = nn.functional.softmax(scores, dim=-1)
        return self.dropout(self.probabilities) @ (x @ self.positions)  # the second is a layer's, as the first is not


class Encoder(nn.Module):
    def __init__(self, attention, times=2):
        super().__init__()
        self.embeddings, self.attention, self.times = nn.Embedding(9, 4), attention, times
        self.device, self.base_model = torch.device("cpu"), self

    def __setattr__(self, name, value):
        if name == "base_model":
            return object.__setattr__(self, name, value)
        return super().__setattr__(name, value)

    def set_attn_implementation(self, name):
        assert name == "eager"

    def forward(self, input_ids, attention_mask):
        x = self.embeddings(input_ids)
        for _ in range(self.times):
            x = self.attention(x)
        return x


def test_products_are_found_in_their_order_whatever_the_module_is_called():
    network = Encoder(Attention())
    found, ran = find_products(network)
    assert found == {network.attention: (("query", "key"), ("query_1", "key_1"), ("probabilities", "value"))}
    assert ran == {network, network.embeddings, network.attention, network.attention.dropout}


def test_operands_are_rounded_and_probabilities_before_dropout():
    module = Attention().train()
    round_products(module, (("query", "key"), ("query_1", "key_1"), ("probabilities", "value")))
    x = torch.rand(2, 3, 4)
    torch.manual_seed(0)
    found = module(x)
    rounded = module.product_fake_quants
    freeze_scales(rounded)
    assert all(isinstance(quantizer, ActivationQuantizer) for quantizer in rounded.values())
    assert float(rounded["probabilities"].max_val) <= 1
    scores = rounded["query"](x) @ rounded["key"](x.mT) + rounded["query_1"](x) @ rounded["key_1"](2 * x.mT)
    probabilities = rounded["probabilities"](scores.softmax(-1))
    torch.manual_seed(0)
    expected = nn.functional.dropout(probabilities, 0.5) @ rounded["value"](x @ module.positions)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(expected, nn.functional.dropout(scores.softmax(-1), 0.5) @ x, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "product"),
    [
        ("einsum", lambda x: torch.einsum("bij,bkj->bik", x, x) @ x),
        ("scaled_dot_product_attention", lambda x: nn.functional.scaled_dot_product_attention(x, x, x)),
        ("linear", lambda x: nn.functional.linear(x, x[0]) @ x),
    ],
)
def test_a_product_that_cannot_be_rounded_is_refused(kind, product):
    class Strange(nn.Module):
        def forward(self, x):
            return product(x)

    network = Encoder(Strange())
    with pytest.raises(UserError, match=f"'attention' calls {kind}, whose operands cannot be rounded"):
        quantize(network)
    assert type(network.embeddings) is nn.Embedding


def test_a_module_that_makes_other_products_the_next_time_is_refused():
    class Changing(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x @ x.mT @ x if self.calls == 1 else x @ (x.mT @ x @ x.mT) @ x

    with pytest.raises(UserError, match="'attention' does not make the same products each time"):
        quantize(Encoder(Changing()))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (type("Doubled", (nn.Linear,), {"forward": lambda self, x: 2 * nn.Linear.forward(self, x)})(4, 4), "Doubled"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "of its own kind"),
        (nn.Embedding(4, 4, max_norm=1.0), "max_norm"),
    ],
)
def test_a_layer_that_computes_something_else_is_refused_before_any_change(layer, reason):
    network = Encoder(Attention())
    network.extra = layer
    with pytest.raises(UserError, match=rf"'extra' .*{reason}"):
        quantize(network)
    assert type(network.embeddings) is nn.Embedding
    assert type(network.attention) is Attention


def test_a_table_that_is_read_without_a_look_up_is_refused():
    network = Encoder(Attention())
    network.tables = nn.Embedding(3, 4)
    with pytest.raises(UserError, match="embedding 'tables' is read without a look-up"):
        quantize(network)


def test_a_layer_without_bias_by_hand():
    """As in `test_a_linear_layer_by_hand`: 205 * 127 - 50 * 40 steps of 0.0001."""
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, -0.404, 0.0]]))
    quantize_layer(layer)
    assert type(layer) is QuantizedLinear
    torch.testing.assert_close(layer(torch.tensor([[2.05, 0.5, -0.5]])), torch.tensor([[2.4035]]), atol=2e-4, rtol=0)
