"""What runs on tiles of tokens: products, attention, and all that treats a token by itself, compiled by Numba.

Files whose names end in 8 are of 8-bit integers.
"""
