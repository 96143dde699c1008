"""A small model on random data, without a task."""

import pytest

from obert.contracts.small_network import SmallNetwork


@pytest.fixture
def setting_of():
    """Makes the small network of a seed."""
    return SmallNetwork
