"""Throughput of BERT-base-size models with random weights and zeros, over the dense float32 one in ONNX Runtime.

    python tests/benchmarks/cpu_inference.py --layers 12 --sparsity 0.8 --pattern 1x4 --int8 --batch 8 --json
    python tests/benchmarks/cpu_inference.py --models 12:0.8 12:0.9 12:0.8:1x4:int8 3:0.8:1x4:int8 --masks global

All models are exported as any model is, and all of them take turns in all engines, in one run. The dense one always has
12 layers. Besides speeds there is what a model's products are of the processor's peak in float32 (multiply-adds with
weights that are not zero, and of attention), and how long the sparse engine spends on each part.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fma_peak import fma_peak
from tabulate import tabulate
from transformers import BertConfig, BertForQuestionAnswering

from obert.deployment.export import export_onnx, file_sizes_mb
from obert.deployment.integer_graph import to_integer
from obert.deployment.latency import random_inputs, speedup, summarize_latency, time_engines
from obert.engines import Engine, ModelFiles
from obert.engines.sparse import Sparse
from obert.foundation import registry
from obert.heads import INPUT_COLUMNS
from obert.heads.question_answering import QuestionAnswering
from obert.masks.holding import apply_masks
from obert.masks.patterns import parse_pattern
from obert.masks.selection import dense_masks, global_masks
from obert.models.encoders import prunable_weights
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales
from obert.records.provenance import environment

HEAD = QuestionAnswering()
BASE_LAYERS = 12
CALIBRATION = 4  # batches of random tokens that the scales are taken from
SPREAD = 0.3  # of the logarithms of the scales of layers, and of rows, in a global mask
REFERENCE = "onnxruntime"
COLUMNS = ("model", "engine", "items/s", "ms", "times", "95 % interval", "times its own dense", "of peak", "linear")


@dataclass(frozen=True)
class Model:
    """What is timed: layers, fraction of zeros, their pattern, and whether it is in 8 bits."""

    layers: int = BASE_LAYERS
    sparsity: float = 0.0
    pattern: str = "unstructured"
    int8: bool = False

    @classmethod
    def parse(cls, text: str) -> Model:
        """From `layers:sparsity`, with `:1x4` and `:int8` behind it where they apply."""
        layers, sparsity, *rest = text.split(":")
        int8 = rest[-1:] == ["int8"]
        pattern = rest[:-1] if int8 else rest
        return cls(int(layers), float(sparsity), *pattern, int8=int8)

    def __str__(self) -> str:
        parts = (str(self.layers), f"{self.sparsity:g}", self.pattern, *(["int8"] if self.int8 else []))
        return ":".join(parts)


DENSE = Model()


def random_model(config: BertConfig, model: Model, masks: str) -> BertForQuestionAnswering:
    """A randomly initialised model with zeros in a pattern.

    Args:
        masks: `random`: any weights, so that all rows have about as many. `global`: the smallest ones of all layers,
            where layers and rows have scales of their own, as in trained models: some rows are nearly empty.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.num_hidden_layers = model.layers
    network = BertForQuestionAnswering._from_config(config, attn_implementation="eager").eval()
    weights = prunable_weights(network)
    scores = {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
    if masks == "global":
        for name, weight in weights.items():
            scale = torch.randn(1, 1, generator=generator) + torch.randn(len(weight), 1, generator=generator)
            scores[name] = (weight * torch.exp(SPREAD * scale)).abs().detach()
    apply_masks(weights, global_masks(scores, dense_masks(weights), model.sparsity, parse_pattern(model.pattern)))
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


def operations(network: BertForQuestionAnswering, batch: int, length: int) -> dict[str, float]:
    """Float operations of one batch, by part: two for each multiply-add with a weight that is not zero."""
    nonzeros = sum(int(torch.count_nonzero(weight)) for weight in prunable_weights(network).values())
    config = network.config
    attention = 2 * config.num_hidden_layers * config.hidden_size * length
    return {"linear": 2.0 * nonzeros * batch * length, "attention": 2.0 * attention * batch * length}


def parts(engine: Engine, inputs: dict[str, np.ndarray], iterations: int) -> dict[str, float]:
    """Median seconds of each part of a run; nothing for an engine that cannot tell."""
    if not isinstance(engine, Sparse):
        return {}
    runs = [engine.seconds_by_part(inputs) for _ in range(iterations)]
    return {name: float(np.median([run[name] for run in runs])) for name in runs[0]}


def compare(arguments: argparse.Namespace, config: BertConfig, folder: Path) -> dict[str, Any]:
    """All figures: `rows`, one a model and engine; sizes in MB after gzip; what was skipped; the machine."""
    files, work = {}, {}
    for index, model in enumerate(dict.fromkeys((DENSE, *arguments.models))):
        network = random_model(config, model, arguments.masks)
        work[model] = operations(network, arguments.batch, arguments.length)
        files[model] = export(network, folder / f"{index}.onnx", model.int8)
    inputs = random_inputs(config.vocab_size, arguments.batch, arguments.length, 0)
    engines, skipped = {}, {}
    for name in dict.fromkeys((REFERENCE, *arguments.engines)):
        engine_class = registry.load("engines", name)
        if reason := engine_class.unavailable_reason():
            skipped[name] = reason
            continue
        for model, file in files.items():
            if reason := engine_class.unfit_reason(file):
                skipped[f"{name}, {model}"] = reason
            elif model == DENSE or name in arguments.engines:
                engines[model, name] = engine_class(file, arguments.threads)
    seconds = time_engines(
        engines, inputs, threads=arguments.threads, warmup=arguments.warmup, iterations=arguments.iterations
    )
    peak, rows = fma_peak(arguments.threads), []
    for (model, name), taken in seconds.items():
        found = summarize_latency(taken, arguments.batch)
        ratio, (low, high) = speedup(seconds[DENSE, REFERENCE], taken)
        row = {"model": str(model), "engine": name, "items_per_s": found.throughput, "p50_ms": found.p50_ms}
        row |= {"speedup": ratio, "speedup_low": low, "speedup_high": high}
        row["over_own_dense"] = speedup(seconds[DENSE, name], taken)[0] if (DENSE, name) in seconds else math.nan
        row["of_peak"] = sum(work[model].values()) / (found.p50_ms / 1e3) / peak
        row["parts"] = parts(engines[model, name], inputs, arguments.iterations)
        if row["parts"]:
            row["linear_of_peak"] = work[model]["linear"] / row["parts"]["linear"] / peak
        rows.append(row)
    sizes = {str(model): file_sizes_mb(file.onnx)[1] for model, file in files.items()}
    chosen = {name: value for name, value in vars(arguments).items() if name not in ("models", "json")}
    machine = environment() | {"peak_gflops": peak / 1e9}
    return {"rows": rows, "gzip_mb": sizes, "skipped": skipped, "options": chosen, "machine": machine}


def shown(found: dict[str, Any]) -> Iterator[str]:
    """The figures for a reader."""
    machine, options = found["machine"], found["options"]
    yield (
        f"{machine['cpu']} ({', '.join(machine['isa_flags'])}), {options['threads']} threads, {options['batch']} x "
        f"{options['length']} tokens, {options['masks']} masks; peak {machine['peak_gflops']:.0f} GFLOP/s in float32"
    )
    rows = []
    for row in found["rows"]:
        values = (row["items_per_s"], row["p50_ms"], row["speedup"])
        interval = f"[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
        shares = [f"{100 * row[name]:.0f} %" if name in row else "" for name in ("of_peak", "linear_of_peak")]
        rows.append((row["model"], row["engine"], *values, interval, row["over_own_dense"], *shares))
    yield tabulate(rows, COLUMNS, floatfmt=".2f")
    for row in found["rows"]:
        if row["parts"]:
            spent = ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in row["parts"].items())
            yield f"{row['model']}, {row['engine']}, ms: {spent}"
    yield from (f"{name} was not timed. {reason}." for name, reason in found["skipped"].items())


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--pattern", default="unstructured", help="unstructured or 1x4")
    parser.add_argument("--int8", action="store_true", help="an integer graph; float32 without")
    parser.add_argument(
        "--models",
        nargs="+",
        type=Model.parse,
        metavar="LAYERS:SPARSITY[:PATTERN][:int8]",
        help="several, in place of the one that the options above describe",
    )
    parser.add_argument(
        "--masks", choices=("random", "global"), default="random", help="global: uneven, as in real ones"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    known = [name for name in registry.names("engines") if not registry.load("engines", name).reads_trained]
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino", "sparse"], choices=known)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


def main(argv: list[str] | None = None, config: BertConfig | None = None) -> None:
    arguments = _options().parse_args(argv)
    one = {name: getattr(arguments, name) for name in ("layers", "sparsity", "pattern", "int8")}
    for name in one:
        delattr(arguments, name)
    arguments.models = arguments.models or [Model(**one)]
    with tempfile.TemporaryDirectory() as folder:
        found = compare(arguments, config or BertConfig(), Path(folder))
    print(json.dumps(found) if arguments.json else "\n".join(shown(found)))


if __name__ == "__main__":
    main()
