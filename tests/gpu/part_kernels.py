"""Semi-structured 2:4 kernels against dense ones in half precision: layers alone, all of them, the whole model.

A rehearsal on the CPU has dense kernels in both places.
"""

from __future__ import annotations

from pathlib import Path

import torch
from measuring import Options, run_part
from places import ROOT
from torch import nn
from torch.utils.benchmark import Timer
from transformers import BertForSequenceClassification

from obert.deployment.latency import random_inputs
from obert.engines import Engine, ModelFiles
from obert.engines.pytorch import PyTorch
from obert.engines.semi_structured import SemiStructured, seconds_of_layers
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.patterns import Pattern
from obert.masks.selection import dense_masks, uniform_masks
from obert.models.encoders import load_tokenizer, load_trained, prunable_layers, prunable_weights, save

HEAD = SequenceClassification()
SCENARIOS = ((1, 128), (32, 128), (16, 384))
TOKENS = 8192
SECONDS = 0.5  # of timing a whole model


def saved(network: nn.Module, folder: Path) -> ModelFiles:
    """A model's folder, as the engine reads it."""
    save(network, load_tokenizer(ROOT / "tests" / "data" / "tiny_bert"), folder)
    return ModelFiles(folder / "none.onnx", folder, HEAD)


def seconds_of_shapes(shapes: set[tuple[int, int]]) -> dict[str, dict[str, float]]:
    """Seconds of one linear layer, dense and 2:4, by shape."""
    found = {}
    for out, size in sorted(shapes):
        weight = torch.randn(out, size, dtype=torch.half, device="cuda")
        weight.view(-1, 4)[:, :2] = 0
        x = torch.randn(TOKENS, size, dtype=torch.half, device="cuda")
        kinds = {"dense": weight, "2:4": torch.sparse.to_sparse_semi_structured(weight)}
        timed = {
            kind: Timer("linear(x, w)", globals={"linear": nn.functional.linear, "x": x, "w": w})
            for kind, w in kinds.items()
        }
        with torch.inference_mode():
            found[f"{out}x{size}"] = {k: t.blocked_autorange(min_run_time=0.1).median for k, t in timed.items()}
    return found


def measure(options: Options) -> dict:
    """Seconds of both by scenario, speed-ups, and the largest difference of logits from those of dense kernels."""
    torch.manual_seed(0)
    network = BertForSequenceClassification(options.config()).eval()
    dense = saved(network, options.folder / "dense")
    weights = prunable_weights(network)
    masks = uniform_masks({n: w.abs() for n, w in weights.items()}, dense_masks(weights), 0.5, Pattern.parse("2:4"))
    for name, weight in weights.items():
        weight.mul_(masks[name])
    pruned = saved(network, options.folder / "pruned")
    if not options.rehearse and (reason := SemiStructured.unavailable_reason() or SemiStructured.unfit_reason(pruned)):
        raise RuntimeError(reason)
    engine_class: type[Engine] = PyTorch if options.rehearse else SemiStructured
    engines = {"dense": engine_class(dense, 1), "2:4": engine_class(pruned, 1)}
    reference = load_trained(pruned.trained, HEAD, attn_implementation="sdpa").to(options.device)
    reference = reference if options.rehearse else reference.half()
    found = {"scenarios": {}, "shapes": {}}
    if not options.rehearse:
        found["shapes"] = seconds_of_shapes({tuple(weight.shape) for weight in weights.values()})
    for batch, length in ((1, 8),) if options.rehearse else SCENARIOS:
        inputs = random_inputs(network.config.vocab_size, batch, length, 0)
        line = {}
        for kind, engine in engines.items():
            timer = Timer("engine.run(inputs)", globals={"engine": engine, "inputs": inputs})
            minimum = 0.01 if options.rehearse else SECONDS
            line[kind] = {
                "seconds": timer.blocked_autorange(min_run_time=minimum).median,
                "linear_seconds": seconds_of_layers(
                    prunable_layers(engine._network), lambda engine=engine, inputs=inputs: engine.run(inputs)
                ),
            }
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(options.device) for name, array in inputs.items()}
            logits = reference(**tensors).logits.float().cpu()
        line["max_difference"] = float((torch.from_numpy(engines["2:4"].run(inputs)[0]) - logits).abs().max())
        line["speedup"] = line["dense"]["seconds"] / line["2:4"]["seconds"]
        line["linear_speedup"] = line["dense"]["linear_seconds"] / line["2:4"]["linear_seconds"]
        found["scenarios"][f"{batch}x{length}"] = line
    return found


if __name__ == "__main__":
    run_part(measure, __doc__)
