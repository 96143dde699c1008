"""Costs of the parts of a model: multiply-adds against its shape, bytes against gzip."""

import gzip

import numpy as np
import pytest
import torch
from architectures.models import make
from samples import HEADS

from obert.deployment.components import component_costs, multiply_adds
from obert.experiment.schema import Model
from obert.models.architecture import architecture_of
from obert.models.encoders import load_pretrained
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales

LENGTH = 10
INPUTS = ("input_ids", "attention_mask")


def loaded(name, folder, head="sequence_classification"):
    make(name, folder)
    network = load_pretrained(Model(source=str(folder)), HEADS[head], ("0", "1"))[0].eval()
    network.set_attn_implementation("eager")
    return network


def sizes(network):
    return {part: sum(x.weight.numel() for x in of.values()) for part, of in architecture_of(network).parts().items()}


@pytest.mark.parametrize(("name", "runs"), [("bert", 1), ("roberta", 1), ("albert", 3)])
def test_multiply_adds_are_those_of_the_shape(tmp_path, name, runs):
    network = loaded(name, tmp_path)
    weights, config = sizes(network), network.config
    found = multiply_adds(network, INPUTS, LENGTH)
    assert found["encoder"] == runs * weights["encoder"] * LENGTH  # ALBERT's one layer runs three times
    assert found["head"] == weights["head"]  # the first token alone
    projection = config.embedding_size * config.hidden_size if name == "albert" else 0
    assert found["embeddings"] == projection * LENGTH  # a look-up has none
    assert found["products"] == config.num_hidden_layers * 2 * LENGTH**2 * config.hidden_size


def test_a_tied_output_counts_for_the_embeddings_with_each_token_that_it_scores(tmp_path):
    network = loaded("bert", tmp_path, "masked_language_model")
    found, config = multiply_adds(network, INPUTS, LENGTH), network.config
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    assert found["embeddings"] == config.vocab_size * config.hidden_size * LENGTH
    assert found["head"] == config.hidden_size**2 * LENGTH  # the transform


def test_bytes_are_those_of_gzip_and_zeros_make_them_fewer(tmp_path):
    network = loaded("bert", tmp_path)
    parts = architecture_of(network).parts()
    dense = component_costs(network, network, INPUTS, 64)
    for part, layers in parts.items():
        content = b"".join(layer.weight.detach().numpy().tobytes() for layer in layers.values())
        assert dense["gzip_bytes"][part] == pytest.approx(len(gzip.compress(content, 6)), abs=100)
    with torch.no_grad():
        for layer in parts["encoder"].values():
            layer.weight[::2] = 0
    sparse = component_costs(network, network, INPUTS, 64)
    assert sparse["gzip_bytes"]["encoder"] < 0.6 * dense["gzip_bytes"]["encoder"]
    assert sparse["gzip_bytes"]["embeddings"] == dense["gzip_bytes"]["embeddings"]
    assert sparse["multiply_adds"] == dense["multiply_adds"]


def test_a_quantised_model_is_weighed_in_integers(tmp_path):
    network, floating = loaded("bert", tmp_path / "a"), loaded("bert", tmp_path / "a")
    quantize(network)
    tokens = torch.ones((1, 4), dtype=torch.long)
    with torch.inference_mode():
        network(input_ids=tokens, attention_mask=tokens)
    found = component_costs(floating, freeze_scales(network), INPUTS, 6)
    assert found["length"] == 6
    assert 0 < found["gzip_bytes"]["encoder"] < 1.1 * sizes(floating)["encoder"]  # a byte a weight at most
    assert np.isfinite(list(found["multiply_adds"].values())).all()
