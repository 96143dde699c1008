"""The library entry point: `prune` and `hold_masks` for any PyTorch module."""
