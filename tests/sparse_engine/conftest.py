"""Tiny models with uneven weights, exported in float32 and in 8 bits; and that all kernels keep to their arrays."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures.models import make
from samples import HEADS

from obert.deployment.export import export_onnx
from obert.deployment.integer_graph import to_integer
from obert.experiment.schema import Model
from obert.heads import Head
from obert.heads.multiple_choice import MultipleChoice
from obert.models.encoders import load_pretrained
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales
from obert.sparse.kernels.bounds import raise_if_violated


@pytest.fixture(autouse=True)
def _within_bounds():
    """Fail a test whose kernels reached beyond the engine's arrays, where that is checked."""
    yield
    raise_if_violated()


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[[str, str], tuple[Path, Path]]:
    """Of an architecture and a head, the files of a float and an integer graph; made once."""
    made = {}

    def export(name: str, head: str) -> tuple[Path, Path]:
        if (name, head) not in made:
            made[name, head] = _export(name, {**HEADS, "multiple_choice": MultipleChoice()}[head], tmp_path_factory)
        return made[name, head]

    return export


def _export(name: str, head: Head, factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = factory.mktemp(name)
    make(name, folder)
    torch.manual_seed(0)
    network, tokenizer = load_pretrained(Model(source=str(folder)), head, ("no", "yes"))
    network.set_attn_implementation("eager")
    network.eval()
    with torch.no_grad():  # weights large enough for a wrong operator to move the outputs
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5).view(-1)[::3] = 0
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    inputs = list(tokenizer.model_input_names)
    floating, integer = folder / "float.onnx", folder / "integer.onnx"
    export_onnx(network, head, floating, inputs)
    integer.write_bytes(floating.read_bytes())
    quantized = quantize(copy.deepcopy(network))
    with torch.no_grad():
        for seed in range(4):
            torch.manual_seed(seed)
            quantized(input_ids=torch.randint(5, network.config.vocab_size, (2, 24)))
    to_integer(integer, freeze_scales(quantized))
    return floating, integer
