import math

from obert.statistics.formatting import DASH, format_difference, format_number, format_summary


def test_numbers_have_fixed_decimals_and_thousands_separators():
    assert format_number(12345.6, 1) == "12,345.6"
    assert format_number(0.5, signed=True) == "+0.50"
    assert format_number(None) == format_number(math.nan) == DASH == "\N{EN DASH}"


def test_summary_shows_spread_and_number_of_runs():
    assert format_summary(88.236, 0.414, 3) == "88.24 ± 0.41 (n=3)"
    assert format_summary(88.236, math.nan, 1) == "88.24 (n=1)"
    assert format_summary(math.nan, math.nan, 0) == DASH


def test_difference_shows_sign_and_interval():
    assert format_difference(-0.3, -0.8, 0.2) == "-0.30 [-0.80, +0.20]"
    assert format_difference(-0.3, math.nan, math.nan) == "-0.30"
    assert format_difference(math.nan, math.nan, math.nan) == DASH
