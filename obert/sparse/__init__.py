"""A CPU engine of this project's own, in NumPy and Numba alone: zeros in weights cost neither time nor memory."""

import importlib

__all__ = ["SparseModel"]


def __getattr__(name: str):
    """The model, imported when it is first used: Numba takes half a second to import."""
    if name in __all__:
        return importlib.import_module("obert.sparse.model").SparseModel
    raise AttributeError(f"module 'obert.sparse' has no attribute '{name}'")
