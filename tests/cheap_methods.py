"""Every pruning method with settings that make it cheap, as its class says them."""

from obert.foundation import registry
from obert.library.choices import SETTLED


def library_settings():
    """By name of every method: what `prune` and `GradualPruner` are given."""
    return {
        name: {key: value for key, value in registry.load("pruning", name).small_settings.items() if key not in SETTLED}
        for name in registry.names("pruning")
    }
