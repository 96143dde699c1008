"""Architectures whose structure does not say all, one file each, named after the configuration's `model_type`.

A file defines one subclass of `obert.models.architecture.Architecture`.
"""

from pathlib import Path


def names() -> tuple[str, ...]:
    """Names of the files, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def code() -> dict[str, tuple[str, ...]]:
    """What `code_hash` is to read besides what is imported: the files are found by name."""
    return {"models/architectures": names()}
