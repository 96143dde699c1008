"""Second-order pruning: gradients, the empirical Fisher, and the solvers of the pruning problem.

Works on plain modules and tensors; imports nothing of the harness.
"""
