"""Time the block Fisher's accumulation and inversion against the paper's rank-one recursion, on the same gradients.

    python tests/benchmarks/fisher.py --block 50 --gradients 1024 --json

Both are given the same chunks of dense gradients of one weight, made on the spot; making them is not timed. The sum
takes a second, so it is made and inverted several times and the mean is given. The error of a block is the largest
difference of its inverse from float64's (accumulation and inversion), relative to the largest value of that.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator

import torch
from _timing import Clock, environment, gemm_rate, show
from torch import Tensor

from obert.second_order.fisher import BlockFisher, RecursiveFisher, spd_inverse
from obert.second_order.gradients import DenseGradients, exact_float32

NAME = "weight"
REPEATS = 4
CHUNK = 256  # gradients that are given at a time: each call reads and writes all of the blocks
DAMPENING = 1e-7
TOKENS = 8
LATENT = 64
LONGEST_ROW = 768


def gradient_chunks(shape: tuple[int, int], count: int, device: torch.device) -> Iterator[DenseGradients]:
    """Gradients as a linear layer's are: sums over tokens of d x', the inputs x correlated, with a decaying spectrum
    and a few large coordinates, rows of d of different size. Their Fisher's blocks of 50 are conditioned like those of
    a fine-tuned encoder (median about 80, largest several thousand)."""
    rows, row_size = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    spectrum = torch.arange(1, LATENT + 1, device=device).pow(-0.5)
    mixing = normal(LATENT, row_size) * spectrum[:, None]
    scale = torch.exp(0.2 * normal(row_size))
    scale[:: max(row_size // 2, 1)] *= 16
    row_scale = 1e-3 * torch.exp(0.5 * normal(rows)) / math.sqrt(TOKENS)
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        inputs = (normal(n * TOKENS, LATENT) @ mixing + normal(n * TOKENS, row_size)) * scale
        output_gradients = normal(n, TOKENS, rows) * row_scale
        yield DenseGradients(torch.bmm(output_gradients.transpose(1, 2), inputs.view(n, TOKENS, row_size)))


def matrix_shape(weights: int) -> tuple[int, int]:
    """A weight's shape: the longest row that divides `weights`, up to `LONGEST_ROW`."""
    row_size = next(size for size in range(min(LONGEST_ROW, weights), 0, -1) if weights % size == 0)
    return weights // row_size, row_size


def relative_errors(inverse: Tensor, reference: Tensor) -> Tensor:
    """Of each block [blocks, B, B]."""
    return (inverse.double() - reference).abs().amax(dim=(1, 2)) / reference.abs().amax(dim=(1, 2))


def measure(block: int, gradients: int, weights: int, device: torch.device) -> dict:
    """All figures, by name; times in seconds."""
    shape = matrix_shape(weights)
    mask = {NAME: torch.ones(shape, dtype=torch.bool, device=device)}
    fishers = [BlockFisher(mask, block, DAMPENING) for _ in range(REPEATS)]
    recursion = RecursiveFisher(mask, block, DAMPENING, gradients)
    reference = torch.zeros(weights // block, block, block, dtype=torch.float64, device=device)
    inverse = torch.full_like(reference, math.nan, dtype=torch.float32)
    accumulation, inversion, recursive = Clock(device), Clock(device), Clock(device)
    with exact_float32(device):
        rate = gemm_rate(device)
        for chunk in gradient_chunks(shape, gradients, device):
            for fisher in fishers:
                with accumulation:
                    fisher.add(NAME, chunk)
            with recursive:
                recursion.add(NAME, chunk)
            values = chunk.values.double().view(len(chunk), -1, block).permute(1, 2, 0)
            reference.baddbmm_(values, values.transpose(1, 2))
    for fisher in fishers:
        with inversion:
            for slab in fisher.slabs(NAME):
                inverse[slab.positions[:, 0] // block] = spd_inverse(slab.fisher, NAME).float()
    reference /= gradients
    reference.diagonal(dim1=1, dim2=2).add_(DAMPENING)
    eigenvalues = torch.linalg.eigvalsh(reference[:: max(1, len(reference) // 1000)])
    conditions = eigenvalues[:, -1] / eigenvalues[:, 0]
    reference = torch.linalg.inv(reference)
    errors, recursion_errors = (relative_errors(x, reference) for x in (inverse, recursion.inverse(NAME)))
    accumulated, inverted = accumulation.seconds / REPEATS, inversion.seconds / REPEATS
    return {
        "speedup": recursive.seconds / (accumulated + inverted),
        "max_relative_error": errors.max().item(),
        "median_relative_error": errors.median().item(),
        "recursion_max_relative_error": recursion_errors.max().item(),
        "gemm_fraction": 2 * gradients * weights * block / accumulated / rate,
        "gemm_gflops": rate / 1e9,
        "seconds": accumulated + inverted,
        "accumulation_seconds": accumulated,
        "inversion_seconds": inverted,
        "recursion_seconds": recursive.seconds,
        "condition_median": conditions.median().item(),
        "condition_max": conditions.max().item(),
        "block": block,
        "gradients": gradients,
        "weights": weights,
        "dampening": DAMPENING,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block", type=int, default=50, help="B")
    parser.add_argument("--gradients", type=int, default=1024, help="m")
    parser.add_argument("--weights", type=int, default=589800, help="a multiple of B")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's default")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.weights % arguments.block:
        parser.error(f"--weights {arguments.weights} is no multiple of --block {arguments.block}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    found = measure(arguments.block, arguments.gradients, arguments.weights, device) | environment(device)
    print(json.dumps(found) if arguments.json else show(found))


if __name__ == "__main__":
    main()
