"""Regression on own data: a text or a pair of texts with one number."""

from obert.tasks._own_columns import OwnColumns
from obert.tasks._regression import Regression


class OwnRegression(OwnColumns, Regression):
    """The loss is the squared error of the numbers as they are: bring them to a range of a few units."""
