"""Classification of own data: a text or a pair of texts with one label, words or numbers."""

from obert.tasks._classification import Classification
from obert.tasks._own_columns import OwnColumns


class OwnClassification(OwnColumns, Classification):
    """Classes are the labels of the training examples, sorted, or in the order in which the source names them."""
