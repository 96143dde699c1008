"""A trial export: whether a model can be exported at all, which is found out before it is trained."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from obert.deployment.export import export_onnx, exported_sparsity
from obert.deployment.integer_graph import to_integer
from obert.deployment.parity import parity
from obert.engines import ModelFiles
from obert.engines.onnxruntime import OnnxRuntime
from obert.foundation.errors import UserError
from obert.heads import Head
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales

LENGTHS, ROWS = (7, 24), 2
_passed: set[tuple] = set()


def try_export(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: Head, quantized: bool) -> None:
    """Export a copy of a model into a folder that is gone afterwards, and run it in ONNX Runtime on random tokens.

    Once a process for each configuration, since weights make no difference. The state of torch's generator is kept.

    Args:
        network: not quantised; it stays as it is.
        quantized: put fake quantisation into the copy, and export its integer form.

    Raises:
        UserError: the model cannot be exported, or the file does not give the model's outputs.
    """
    inputs = tuple(tokenizer.model_input_names)
    trial = (type(network), network.config.to_json_string(), inputs, quantized)
    if trial in _passed:
        return
    try:
        with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
            _try(copy.deepcopy(network).cpu().eval(), inputs, head, quantized, Path(folder))
    except Exception as error:  # whatever the exporter raises
        lines = [line for line in str(error).splitlines() if line.strip()]
        form = "in 8 bits" if quantized else "to ONNX"
        raise UserError(
            f"{type(network).__name__} (model_type {network.config.model_type}) cannot be exported {form}, which a "
            f"trial before training shows: {lines[0] if lines else type(error).__name__}. Take another model, or leave "
            f"{'quantize' if quantized else 'benchmark'} out of the experiment"
        ) from error
    _passed.add(trial)


def _try(network: PreTrainedModel, inputs: Sequence[str], head: Head, quantized: bool, folder: Path) -> None:
    files = ModelFiles(folder / "model.onnx", folder, head)
    network.set_attn_implementation("eager")
    export_onnx(network, head, files.onnx, inputs)
    batches = list(_random_batches(network, inputs))
    if quantized:
        quantize(network)
        with torch.inference_mode():
            for batch in batches:
                network(**batch)
        to_integer(files.onnx, freeze_scales(network))
    exported_sparsity(files.onnx, network, 0.0)
    parity(network, OnnxRuntime(files, 1), head, batches, quantized)


def _random_batches(network: PreTrainedModel, inputs: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """Batches [ROWS, length] of tokens in no order, the last row of each with padding."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for length in LENGTHS:
        mask = torch.ones((ROWS, length), dtype=torch.long)
        mask[-1, length // 2 :] = 0
        tokens = torch.randint(network.config.vocab_size, (ROWS, length), generator=generator)
        tokens = torch.where(mask == 1, tokens, network.config.pad_token_id or 0)
        made = {name: torch.zeros_like(mask) for name in inputs} | {"input_ids": tokens, "attention_mask": mask}
        batches.append(made)
    return batches
