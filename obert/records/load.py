"""What else a machine is doing, and whether that is too much to time a model beside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obert.records.record import Record

BUSY = 0.5  # of the cores: with more in use before it begins, a timing is not of one model alone
IN_USE = "cores_in_use_before"  # in what is written of a timing


def is_busy(in_use: float, cores: int | None) -> bool:
    """Whether that many cores in use are too many to time a model beside."""
    return in_use > BUSY * (cores or 1)


def busy_before(timed: Record) -> float | None:
    """The cores in use before a benchmark, where they were too many to time a model beside; None where not."""
    in_use = timed.details.get(IN_USE)
    return in_use if in_use is not None and is_busy(in_use, timed.environment.get("cores")) else None


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
