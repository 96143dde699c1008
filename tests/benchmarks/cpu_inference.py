"""Throughput of a BERT-base-size model with random weights and zeros, and its speed-up over the dense float32 one.

    python tests/benchmarks/cpu_inference.py --layers 12 --sparsity 0.8 --pattern 1x4 --int8 --batch 8 --json

Both models are exported as any model is, and take turns in each engine. The dense one always has 12 layers.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path

import torch
from _timing import show
from transformers import BertConfig, BertForQuestionAnswering

from obert.deployment.export import export_onnx, file_sizes_mb
from obert.deployment.integer_graph import to_integer
from obert.deployment.latency import random_inputs, speedup, summarize_latency, time_engines
from obert.engines import ModelFiles
from obert.foundation import registry
from obert.heads import INPUT_COLUMNS
from obert.heads.question_answering import QuestionAnswering
from obert.masks.holding import apply_masks
from obert.masks.patterns import parse_pattern
from obert.masks.selection import dense_masks, global_masks
from obert.models.encoders import prunable_weights
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales

HEAD = QuestionAnswering()
BASE_LAYERS = 12
CALIBRATION = 4  # batches of random tokens that the scales are taken from


def random_model(config: BertConfig, layers: int, sparsity: float, pattern: str) -> BertForQuestionAnswering:
    """A randomly initialised model with random zeros in a pattern."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    network = BertForQuestionAnswering._from_config(config, attn_implementation="eager").eval()
    weights = prunable_weights(network)
    scores = {name: torch.rand_like(weight) for name, weight in weights.items()}
    apply_masks(weights, global_masks(scores, dense_masks(weights), sparsity, parse_pattern(pattern)))
    return network


def export(network: BertForQuestionAnswering, path: Path, int8: bool) -> ModelFiles:
    """The model in a file, as an integer graph if `int8`."""
    export_onnx(network, HEAD, path, INPUT_COLUMNS)
    if int8:
        quantize(network)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _ in range(CALIBRATION):
                network(input_ids=torch.randint(network.config.vocab_size, (2, 64), generator=generator))
        to_integer(path, freeze_scales(network))
    return ModelFiles(path, path.parent, HEAD)


def compare(arguments: argparse.Namespace, config: BertConfig, folder: Path) -> dict[str, object]:
    """All figures, by name: items/s, ratios, and sizes in MB after gzip."""
    dense = export(random_model(config, BASE_LAYERS, 0, "unstructured"), folder / "dense.onnx", False)
    network = random_model(config, arguments.layers, arguments.sparsity, arguments.pattern)
    candidate = export(network, folder / "candidate.onnx", arguments.int8)
    sizes = {role: file_sizes_mb(files.onnx)[1] for role, files in (("dense", dense), ("candidate", candidate))}
    found: dict[str, object] = {f"{role}_gzip_mb": size for role, size in sizes.items()}
    inputs = random_inputs(config.vocab_size, arguments.batch, arguments.length, 0)
    for name in arguments.engines:
        engine_class = registry.load("engines", name)
        if reason := engine_class.unavailable_reason() or engine_class.inexact_reason(candidate):
            found[f"{name}_skipped"] = reason
            continue
        engines = {role: engine_class(f, arguments.threads) for role, f in (("dense", dense), ("candidate", candidate))}
        seconds = time_engines(
            engines, inputs, threads=arguments.threads, warmup=arguments.warmup, iterations=arguments.iterations
        )
        ratio, (low, high) = speedup(seconds["dense"], seconds["candidate"])
        for role in seconds:
            found[f"{name}_{role}_items_per_s"] = summarize_latency(seconds[role], arguments.batch).throughput
        found |= {f"{name}_speedup": ratio, f"{name}_speedup_low": low, f"{name}_speedup_high": high}
    return found | vars(arguments)


def main(argv: list[str] | None = None, config: BertConfig | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--pattern", default="unstructured", help="unstructured or 1x4")
    parser.add_argument("--int8", action="store_true", help="an integer graph; float32 without")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    engines = ["onnxruntime", "openvino", "deepsparse"]
    parser.add_argument("--engines", nargs="+", default=engines, choices=registry.names("engines"))
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(arguments, config or BertConfig(), Path(folder))
    print(json.dumps(found) if arguments.json else show(found))


if __name__ == "__main__":
    main()
