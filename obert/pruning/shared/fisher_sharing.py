"""One Fisher for several pruning events: sweeps try many dampenings, solvers and sparsities on the same model."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from obert.second_order.fisher import BlockFisher


@dataclass
class SharedFisher:
    """The Fisher of one pruning event, kept for others that differ in dampening, solver or sparsity alone, and the
    scores, kept for those that differ in sparsity alone.

    Attributes:
        origin: what the Fisher was estimated from.
        fisher: None before the first event.
        solution: dampening, solver and pattern that the scores are of.
        scores: by weight; `multipliers` belong to them.
    """

    origin: Hashable = None
    fisher: BlockFisher | None = None
    solution: Hashable = None
    scores: Mapping[str, Tensor] | None = None
    multipliers: Mapping[str, Tensor] | None = None


_SHARING: ContextVar[tuple[SharedFisher, Hashable] | None] = ContextVar("sharing", default=None)


@contextmanager
def sharing(kept: SharedFisher, origin: Hashable) -> Iterator[None]:
    """A block in which dense models are pruned by a Fisher, and by scores, that are kept from an earlier event if they
    would be the same.

    Args:
        kept: is used where it fits, and filled anew where it does not.
        origin: names what decides the gradients besides the method itself: weights, data, seeds. The caller answers
            for it that they are the same where it is.
    """
    token = _SHARING.set((kept, origin))
    try:
        yield
    finally:
        _SHARING.reset(token)


def shared_fisher(estimation: Hashable) -> SharedFisher | None:
    """What an event may share: with the Fisher in it if that is this event's too, emptied if it is another's.

    Args:
        estimation: all of the method that decides the gradients and blocks.

    Returns:
        None outside of `sharing`.
    """
    if _SHARING.get() is None:
        return None
    kept, origin = _SHARING.get()
    if kept.origin != (origin, estimation):  # the other's memory is needed for the next
        kept.origin, kept.fisher = (origin, estimation), None
        kept.solution, kept.scores, kept.multipliers = None, None, None
    return kept
