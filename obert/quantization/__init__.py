"""8-bit training with fake quantisation."""
