"""The summed block Fisher and its inversion against the recursion, with errors, and two ways to invert small blocks."""

import fisher
import torch
from _timing import Clock
from measuring import Options, peak_gb, reset_peak, run_part

from obert.second_order.fisher import LEAF, spd_inverse

WEIGHTS, GRADIENTS, BLOCK = 7_077_600, 1024, 50  # a twelfth of BERT-base's encoder, in whole blocks
BLOCKS = 20_000


def seconds_of_inverses(count: int, device: torch.device) -> dict[str, float]:
    """Seconds of inverting leaves by ours and by `cholesky_inverse`, which may go through a batch one by one."""
    factor = torch.randn(count, LEAF, 2 * LEAF, dtype=torch.float64, device=device)
    matrices = torch.bmm(factor, factor.mT)
    ways = {
        "leaf_seconds": lambda: spd_inverse(matrices, "leaf"),
        "leaf_cholesky_inverse_seconds": lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrices)),
    }
    found = {}
    for name, way in ways.items():
        way()
        clock = Clock(device)
        with clock:
            way()
        found[name] = clock.seconds
    return found


def measure(options: Options) -> dict:
    """The figures of `tests/benchmarks/fisher.py`, peak memory, and seconds of `BLOCKS` leaves."""
    weights, gradients, blocks = (12_000, 64, 20) if options.rehearse else (WEIGHTS, GRADIENTS, BLOCKS)
    reset_peak(options.device)
    found = fisher.measure(BLOCK, gradients, weights, options.device) | {"peak_memory_gb": peak_gb(options.device)}
    return found | {"leaves": blocks} | seconds_of_inverses(blocks, options.device)


if __name__ == "__main__":
    run_part(measure, __doc__)
