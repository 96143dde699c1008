"""Seconds of a training step of the harness against those of the plain Trainer: tests/benchmarks/training_step.py.

BERT-base, batch 16 at 384 tokens (question answering) or 32 at 128 (classification), in float32 and in bfloat16.
"""

from __future__ import annotations

from dataclasses import replace

from measuring import Options, peak_gb, reset_peak, run_part
from training_step import Case, measure

CASES = {"384": ("squad", 16), "128": ("sst2", 32)}
BLOCK, BLOCKS = 10, 8


def measure_both(options: Options) -> dict:
    """Figures by precision and pair, and the peak memory of all that is trained side by side."""
    task, batch = CASES[options.argument]
    case = Case(task, batch, int(options.argument), BLOCK, BLOCKS, options.device)
    if options.rehearse:
        case = replace(case, batch=2, length=16, block=1, blocks=2)
    found: dict = {"batch": case.batch, "length": case.length, "block": case.block, "blocks": case.blocks}
    for precision in ("float32", "bfloat16"):
        reset_peak(options.device)
        pairs = measure(replace(case, precision=precision), options.config())
        found[precision] = {"pairs": pairs, "peak_memory_gb": peak_gb(options.device)}
    return found


if __name__ == "__main__":
    run_part(measure_both, __doc__, tuple(CASES))
