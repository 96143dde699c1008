"""obert: a reproducibility benchmark harness for compressing BERT-family models."""

__version__ = "0.1.0"
