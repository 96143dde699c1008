"""Masks: which weights are kept. Patterns, selection with exact counts, holding zeros, counting them.

Works on plain tensors; imports nothing of the harness.
"""
