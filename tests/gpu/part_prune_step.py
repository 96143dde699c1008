"""Gradients, Fisher, solver and the whole pruning step at BERT-base size against the published procedure.

The recursion is timed on some layers and scaled to all by their weights; `published_seconds_extrapolated` says so.
`OBERT_GPU_GRADIENTS` sets m.
"""

import os

import torch
from measuring import Options, peak_gb, reset_peak, run_part
from prune_step import PASS, RANDOM_LENGTH, Timed, compare, floor, random_case, step

SPARSITY = 0.8
LAYERS = 6  # one encoder layer


def measure(options: Options) -> dict:
    """Seconds by part of both, the floor that the card sets, and the peak memory of our step beside its estimate."""
    gradients = 24 if options.rehearse else int(os.environ.get("OBERT_GPU_GRADIENTS", "1024"))
    length = 8 if options.rehearse else RANDOM_LENGTH
    case = random_case(options.config(), length, options.device)
    found = compare(case, {}, gradients, SPARSITY, LAYERS)
    method = Timed(gradients="per_example", gradient_batch_size=PASS, num_gradients=gradients)
    found["floor_seconds"] = floor(found["weights"], method, length, options.device)
    weights = case.weights
    if options.device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak(options.device)
    found["seconds_again"], _ = step(case, method, SPARSITY)  # once more: libraries are loaded by now
    found["peak_memory_gb"] = peak_gb(options.device)
    model = sum(parameter.nbytes for parameter in case.network.parameters())
    estimate = method.memory_bytes({name: weight.numel() for name, weight in weights.items()})
    return found | {"estimated_memory_gb": estimate / 1e9, "model_memory_gb": model / 1e9}


if __name__ == "__main__":
    run_part(measure, __doc__)
