"""One seed for each purpose. The method is not part of a seed, so comparisons between methods are paired."""

import hashlib

PURPOSES = ("data order", "initialization", "dropout", "gradients", "pruning")


def derive_seed(base: int, task: str, seed: int, purpose: str) -> int:
    """A 32-bit seed from sha256(base, task, seed, purpose).

    Raises:
        ValueError: `purpose` is not in PURPOSES.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"unknown seed purpose {purpose!r}; allowed: {PURPOSES}")
    digest = hashlib.sha256(f"{base}|{task}|{seed}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
