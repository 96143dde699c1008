"""Tables, figures and leaderboards, one file each, made from records alone. Nothing here imports training code."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from obert.records import Record


@dataclass(frozen=True)
class Results:
    """What tables are made from.

    Attributes:
        experiment: its name; `description` is its text, with sizes and scale.
        records: all of the experiment's records.
        curves: per-step training curves of a run, by the path of its key (columns step, epoch, loss, learning_rate,
            sparsity); loaded on demand.
    """

    experiment: str
    description: str
    records: tuple[Record, ...]
    curves: dict[str, pd.DataFrame]


class Base(ABC):
    """A table or figure."""

    title: ClassVar[str]
    caption: ClassVar[str]

    @abstractmethod
    def build(self, results: Results) -> pd.DataFrame:
        """The content as a flat table of strings and numbers: what a table shows, or what a figure is drawn from."""

    def draw(self, content: pd.DataFrame) -> Figure | None:
        """The figure, or None for a table."""
        return None
