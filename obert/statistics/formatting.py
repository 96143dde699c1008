"""Numbers as a reader sees them: decimals, spreads, intervals, and a dash for what is not there."""

import pandas as pd

DASH = "\N{EN DASH}"


def format_number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with `digits` decimals, thousands separated; a dash if there is none."""
    if value is None or pd.isna(value):
        return DASH
    return f"{value:{'+' if signed else ''},.{digits}f}"


def format_setting(value: float | str) -> str:
    """A number as short as it can be written, e.g. "1e-07"; text, e.g. "1%", as it is."""
    return value if isinstance(value, str) else f"{value:g}"


def format_summary(mean: float, std: float, n: float, digits: int = 2) -> str:
    """E.g. "88.24 ± 0.41 (n=3)"; without ± for one run; a dash for none."""
    if pd.isna(mean):
        return DASH
    spread = "" if pd.isna(std) else f" ± {format_number(std, digits)}"
    return f"{format_number(mean, digits)}{spread} (n={int(n)})"


def format_difference(mean: float, low: float, high: float, digits: int = 2) -> str:
    """E.g. "-0.30 [-0.80, +0.20]"; without bounds where there are none; a dash without a difference."""
    if pd.isna(mean) or pd.isna(low):
        return format_number(mean, digits, signed=True)
    bounds = ", ".join(format_number(bound, digits, signed=True) for bound in (low, high))
    return f"{format_number(mean, digits, signed=True)} [{bounds}]"
