"""8-bit training with fake quantisation, and the integer form of the exported graph."""
