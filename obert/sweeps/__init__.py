"""Sweeps over the values of a recipe's keys, run as Optuna trials on held-out training data."""
