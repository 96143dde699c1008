"""How many float32 operations a second the processor's fused multiply-adds give at most."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from numba import njit

from obert.sparse.kernels.arrays import aligned
from obert.sparse.kernels.vectors import Kind, add, fma, load, row_bytes, store

SUMS, LANES = 6, (16, 32)  # with AVX2 and AVX-512 12 sums of a register each, which hide the latency and fit
ROUNDS, REPETITIONS = 1 << 20, 8


@njit(nogil=True, error_model="numpy")
def _multiply(V, address, rounds):
    size = row_bytes(V)
    x, y = load(V, address), load(V, address + size)
    a, b, c = load(V, address + 2 * size), load(V, address + 3 * size), load(V, address + 4 * size)
    d, e, f = load(V, address + 5 * size), load(V, address + 6 * size), load(V, address + 7 * size)
    for _ in range(rounds):
        a, b, c = fma(x, y, a), fma(x, y, b), fma(x, y, c)
        d, e, f = fma(x, y, d), fma(x, y, e), fma(x, y, f)
    store(address, add(add(add(a, b), add(c, d)), add(e, f)))


def fma_peak(threads: int) -> float:
    """Operations a second of all threads together, the best of several tries; a multiply-add is two."""
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for lanes in LANES:
            kind, places = Kind(lanes), [aligned((SUMS + 2, lanes)) for _ in range(threads)]
            _multiply(kind, places[0].ctypes.data, 1)
            for _ in range(REPETITIONS):
                start = time.perf_counter()
                running = [pool.submit(_multiply, kind, place.ctypes.data, ROUNDS) for place in places]
                for done in running:
                    done.result()
                seconds = time.perf_counter() - start
                best = max(best, threads * ROUNDS * SUMS * lanes * 2 / seconds)
    return best
