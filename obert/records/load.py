"""What else a machine is doing, and whether that is too much to time a model beside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obert.records.record import Record

BUSY = 0.5  # processes a core: with more beside the one that measures, its timings are not of one model alone


def is_busy(processes: float, cores: int | None) -> bool:
    """Whether that many running processes, such as a load average, are too many to time a model beside."""
    return processes > BUSY * (cores or 1)


def load_beside(timed: Record) -> float | None:
    """The load average before a benchmark, where it was too much to time a model beside; None where it was not."""
    load = timed.details.get("load_average_before")
    return load if load is not None and is_busy(load, timed.environment.get("cores")) else None


@dataclass(frozen=True)
class Load:
    """What a machine is doing.

    Attributes:
        average: processes that ran or waited, over the last minute. Work that has ended counts for some time.
        in_use: cores that are in use now.
        cores: that there are.
    """

    average: float
    in_use: float
    cores: int

    @classmethod
    def now(cls, seconds: float = 1.0) -> Load:
        """Look at all processors for that long."""
        import psutil

        cores = os.cpu_count() or 1
        return cls(os.getloadavg()[0], psutil.cpu_percent(interval=seconds) / 100 * cores, cores)

    @property
    def is_busy(self) -> bool:
        """Whether too many cores are in use to time a model."""
        return is_busy(self.in_use, self.cores)

    def __str__(self) -> str:
        return f"{self.in_use:.1f} of {self.cores} cores in use, load average {self.average:.2f}"
