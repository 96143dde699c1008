"""A trial export finds out before training what cannot be exported, and changes nothing."""

import pytest
import torch
from samples import HEADS, with_new_head
from transformers import BertConfig

from obert.deployment import trial
from obert.foundation.errors import UserError
from obert.models.encoders import load_tokenizer
from obert.quantization.fake import is_quantized

TINY = "tests/data/tiny_bert"
HEAD = HEADS["sequence_classification"]


@pytest.fixture
def model(root, monkeypatch):
    monkeypatch.setattr(trial, "_passed", set())
    return with_new_head(root / TINY, HEAD), load_tokenizer(root / TINY)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_good_model_passes_once_and_is_as_it_was(model, quantized, monkeypatch):
    network, tokenizer = model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    trial.try_export(network, tokenizer, HEAD, quantized)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not is_quantized(network)
    assert network.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    monkeypatch.setattr(trial, "_try", None)  # a second one would fail
    trial.try_export(network, tokenizer, HEAD, quantized)
    with pytest.raises(UserError):
        trial.try_export(network, tokenizer, HEAD, not quantized)


def test_what_the_exporter_raises_is_one_message(model, monkeypatch):
    def fails(*_):
        raise RuntimeError("\nno translation of aten::strange\nand a trace of many lines")

    monkeypatch.setattr(trial, "export_onnx", fails)
    with pytest.raises(UserError) as raised:
        trial.try_export(*model, HEAD, quantized=False)
    assert str(raised.value) == (
        "BertForSequenceClassification (model_type bert) cannot be exported to ONNX, which a trial before training "
        "shows: no translation of aten::strange. Take another model, or leave benchmark out of the experiment"
    )


def test_a_file_of_other_logits_is_refused(model, monkeypatch):
    export = trial.export_onnx

    def wrong(network, *rest):
        export(network, *rest)
        with torch.no_grad():
            network.classifier.bias += 1

    monkeypatch.setattr(trial, "export_onnx", wrong)
    with pytest.raises(UserError, match="trial before training shows: logits of ONNX Runtime differ from PyTorch's"):
        trial.try_export(*model, HEAD, quantized=False)


def test_a_layer_of_its_own_kind_is_refused_in_8_bits_alone(model):
    class Scaled(torch.nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    network, tokenizer = model
    network.bert.encoder.layer[0].output.dense.__class__ = Scaled
    trial.try_export(network, tokenizer, HEAD, quantized=False)
    with pytest.raises(UserError, match=r"in 8 bits, .*'bert\.encoder\.layer\.0\.output\.dense' is a Scaled of"):
        trial.try_export(network, tokenizer, HEAD, quantized=True)


def test_a_model_is_known_by_its_configuration(model):
    network, tokenizer = model
    trial.try_export(network, tokenizer, HEAD, quantized=False)
    other = type(network)(BertConfig(**(network.config.to_dict() | {"num_hidden_layers": 1})))
    trial.try_export(other, tokenizer, HEAD, quantized=False)
    assert len(trial._passed) == 2
