"""Who is told how a run gets on while it is made: nobody, unless the process that makes it asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obert.records.record import Record, Score


class Listener:
    """Is told, and does nothing. What a subclass does must neither fail nor take time: the run waits for it."""

    def started(self, record: Record) -> None:
        """A run has started.

        Args:
            record: what is known of it so far.
        """

    def stepped(self, lines: Sequence[dict[str, Any]]) -> None:
        """Optimiser steps are over.

        Args:
            lines: `step`, `loss`, `learning_rate` and `sparsity` of each.
        """

    def evaluated(self, metrics: dict[str, Score], primary: str) -> None:
        """The model has been evaluated.

        Args:
            primary: the name of the main one of its metrics.
        """


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def listener() -> Listener:
    """Who listens."""
    return _listener.get() or Listener()


@contextmanager
def listening(who: Listener) -> Iterator[None]:
    """A block whose runs tell `who` how they get on."""
    token = _listener.set(who)
    try:
        yield
    finally:
        _listener.reset(token)
