"""What pruning methods share: their training hooks, gradients, and the block-diagonal Fisher.

These modules are for methods to import, from inside the package or outside it; they are no methods themselves.
"""
