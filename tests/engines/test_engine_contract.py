"""What every engine must keep to. A new file in `obert/engines/` is tested here without being named."""

import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import WHOLE_AND_TOKENS, padded_batches, with_new_head

from obert.deployment.export import export_onnx
from obert.deployment.integer_graph import to_integer
from obert.deployment.latency import random_inputs
from obert.deployment.parity import parity
from obert.engines import ModelFiles
from obert.foundation import registry
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import load_float, load_tokenizer, load_trained, save
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny_bert"
LENGTHS = (3, 17, 9, 30, 4, 4, 25, 12, 8, 21)  # more than one batch, each with padding


@pytest.fixture(scope="module", params=WHOLE_AND_TOKENS)
def model(request, tmp_path_factory):
    """The files of a tiny model with one head, and the model itself."""
    folder, head = tmp_path_factory.mktemp("model"), WHOLE_AND_TOKENS[request.param]
    torch.manual_seed(0)
    network = with_new_head(TINY, head)
    save(network, load_tokenizer(TINY), folder / "model")
    network = load_trained(folder / "model", head, attn_implementation="eager")
    export_onnx(network, head, folder / "model.onnx", INPUT_COLUMNS)
    return ModelFiles(folder / "model.onnx", folder / "model", head), network


@pytest.fixture(scope="module", params=WHOLE_AND_TOKENS)
def quantized_model(request, tmp_path_factory):
    """The same in 8 bits: the file is an integer graph."""
    folder, head = tmp_path_factory.mktemp("quantized"), WHOLE_AND_TOKENS[request.param]
    torch.manual_seed(0)
    network = quantize(with_new_head(TINY, head)).eval()
    with torch.no_grad():
        for inputs in padded_batches(features(network.config.vocab_size), network.config.pad_token_id):
            network(**inputs)
    save(freeze_scales(network), load_tokenizer(TINY), folder / "model")
    export_onnx(
        load_float(folder / "model", head, attn_implementation="eager"), head, folder / "model.onnx", INPUT_COLUMNS
    )
    to_integer(folder / "model.onnx", network)
    return ModelFiles(folder / "model.onnx", folder / "model", head), network


def features(vocabulary):
    generator = np.random.default_rng(0)
    return {
        "input_ids": [generator.integers(5, vocabulary, n).tolist() for n in LENGTHS],
        "attention_mask": [[1] * n for n in LENGTHS],
        "token_type_ids": [[0] * (n // 2) + [1] * (n - n // 2) for n in LENGTHS],
    }


@pytest.fixture(params=registry.names("engines"))
def engine_class(request):
    found = registry.load("engines", request.param)
    if reason := found.unavailable_reason():
        pytest.skip(reason)
    return found


@pytest.mark.parametrize("name", registry.names("engines"))
def test_an_engine_whose_library_is_a_dependency_runs(name):
    """Else a broken installation would skip all that follows. Any other is pinned in an environment of its own."""
    engine = registry.load("engines", name)
    dependencies = {re.match(r"[\w.-]+", line)[0] for line in importlib.metadata.requires("obert")}
    if engine.hardware is not None:
        assert engine.unavailable_reason() is None or engine.hardware in engine.unavailable_reason()
    elif engine.library in dependencies:
        assert engine.unavailable_reason() is None
    else:
        assert engine.environment.library == engine.library == name
        pins = (ROOT / "workflow" / "envs" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert [line for line in pins if line.startswith(f"{name}==")]


@pytest.mark.parametrize("name", registry.names("engines"))
def test_a_missing_library_is_a_stated_reason(name, monkeypatch):
    engine = registry.load("engines", name)
    monkeypatch.setattr(engine, "library", "a_library_that_is_not_there")
    reason = engine.unavailable_reason()
    assert engine.label in reason
    assert "'a_library_that_is_not_there'" in reason
    assert "\n" not in reason


def test_logits_equal_those_of_pytorch(engine_class, model):
    files, network = model
    engine = engine_class(files, 1)
    seen = 0
    for inputs in padded_batches(features(network.config.vocab_size), network.config.pad_token_id):
        with torch.inference_mode():
            expected = network(**inputs, return_dict=False)
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        real = arrays["attention_mask"] == 1
        outputs = engine.run(arrays)
        assert len(outputs) == len(expected)
        for output, reference in zip(outputs, expected, strict=True):
            assert output.dtype == np.float32
            assert output.shape == tuple(reference.shape)
            reference = reference.numpy()
            if files.head.of_tokens:
                output, reference = output[real], reference[real]
            assert reference.std() > 1e-3, "logits that are all alike would prove nothing"
            np.testing.assert_allclose(output, reference, atol=engine.tolerance)
        seen += len(real)
    assert seen == len(LENGTHS)


def test_an_integer_graph_gives_the_logits_of_its_model(engine_class, quantized_model):
    files, network = quantized_model
    if reason := engine_class.unfit_reason(files):
        pytest.skip(reason)
    engine = engine_class(files, 1)
    # Rounding passes on the last bits that engines differ in: the largest difference is a step or two.
    batches = padded_batches(features(network.config.vocab_size), network.config.pad_token_id)
    assert parity(network, engine, files.head, batches, quantized=True).count == len(LENGTHS)
    left = engine.unsupported()
    assert left is None or "saturates on this processor" in left


def test_products_of_integers_are_exact(engine_class, quantized_model):
    """On any processor: users are told where they are not, and are not to be told so of any engine of the project."""
    files, _ = quantized_model
    reason = engine_class.unfit_reason(files)
    if reason and reason != engine_class.inexact_reason(files):
        pytest.skip(reason)
    assert engine_class.integer_product_error() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_read_back(engine_class, model, threads):
    engine = engine_class(model[0], threads)
    assert engine.threads() == threads
    engine.run(random_inputs(100, 2, 8, 0))
    assert engine.threads() == threads


def test_an_export_is_run_by_the_engine_itself(engine_class, model):
    engine = engine_class(model[0], 1)
    engine.run(random_inputs(100, 2, 8, 0))
    assert engine.unsupported() is None
    assert engine.version()
