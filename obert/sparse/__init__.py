"""A CPU engine of this project's own, in NumPy and Numba alone: zeros in weights cost neither time nor memory."""
