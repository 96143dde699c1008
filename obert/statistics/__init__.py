"""Means, spreads and differences of scores, each with the number of runs that it is over."""

CONFIDENCE = 0.95  # of intervals
