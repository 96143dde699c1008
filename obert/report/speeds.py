"""What models timed by hand came to: a table for the terminal, and files with all of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from obert.deployment.comparison import Comparison, Timing
from obert.deployment.latency import speedup, summarize_latency
from obert.foundation.files import atomic_path, plain, write_text
from obert.records.load import IN_USE, Load
from obert.statistics.formatting import DASH, format_number
from obert.tables import _figures
from obert.tables._speeds import draw_speeds

TABLE, PICTURE, RECORD = "speeds.csv", "speeds.png", "speeds.json"
COLUMNS = (
    "engine", "model", "batch_size", "sequence_length", "threads", "items_per_second", "items_per_second_low",
    "items_per_second_high", "p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high", "over",
    "over_p50_ms", "rounds",
)  # fmt: skip
SHOWN = (
    "engine", "model", "batch", "tokens", "threads", "items/s", "median ms", "p90 ms", "p99 ms", "speed-up",
    "95 % interval", "base ms",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Timings with all that a reader must know of them.

    Attributes:
        machine: as records have it.
        load: before.
        found: the models and their timings.
    """

    machine: dict[str, Any]
    load: Load
    found: Comparison

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row a timing: items a second from the median, percentiles of a batch, and the speed-up with its interval
        beside the base model's median in the same rounds."""
        return [dict(zip(COLUMNS, _row(timing), strict=True)) for timing in self.found.timings]

    def write(self, folder: Path) -> list[Path]:
        """Write table, picture and record, each whole or not at all. Returns their paths."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(row.values() for row in self.rows)])
        write_text(folder / TABLE, text.getvalue())
        write_text(folder / RECORD, json.dumps(self._record(), indent=1, default=plain) + "\n")
        figure = draw_speeds(pd.DataFrame(self.rows))
        _figures.fix_layout(figure)
        with atomic_path(folder / PICTURE) as temporary:
            temporary.write_bytes(_figures.save(figure, "png"))
        return [folder / name for name in (TABLE, PICTURE, RECORD)]

    def _record(self) -> dict[str, Any]:
        timings = [
            {
                **row,
                "version": timing.version,
                "unsupported": timing.unsupported,
                "seconds": timing.seconds,
                "over_seconds": timing.baseline,
            }
            for row, timing in zip(self.rows, self.found.timings, strict=True)
        ]
        models = [
            {
                "name": name,
                "path": given.path,
                "linear_weights": given.contents.weights,
                "zeros": given.contents.sparsity,
                "in_8_bits": given.contents.share_in_8_bits,
                "mb": given.contents.megabytes,
            }
            for name, given in self.found.models.items()
        ]
        return {
            "machine": self.machine,
            "load_average_before": self.load.average,
            IN_USE: self.load.in_use,
            "busy": self.load.is_busy,
            "base": self.found.base,
            "models": models,
            "timings": timings,
            "notes": self.found.notes,
        }

    def text(self) -> str:
        """For the terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        flags = ", ".join(self.machine["isa_flags"]) or "its instruction sets are not known here"
        yield f"{self.machine['cpu']} ({flags}), {self.machine['cores']} cores. Before: {self.load}."
        if self.load.is_busy:
            yield "Other work was running beside it: take the figures with care."
        yield f"\n{self._models()}\n\n{self._timings()}\n"
        if overs := " and ".join(dict.fromkeys(row["over"] for row in self.rows if row["over"])):
            rounds = self.rows[0]["rounds"]
            base = f"{self.found.base} in {overs}"
            yield f"Speed-ups are over {base}, whose median in the same {rounds} rounds is 'base ms'."
        yield from self.found.notes

    def _models(self) -> str:
        rows = []
        for name, given in self.found.models.items():
            held = given.contents
            shares = f"{100 * held.sparsity:.1f}", f"{100 * held.share_in_8_bits:.0f}"
            rows.append((name, given.path, f"{held.weights:,}", *shares, f"{held.megabytes:.1f}"))
        return _aligned(rows, ("model", "where", "linear weights", "zeros %", "in 8 bits %", "MB"), 2)

    def _timings(self) -> str:
        shown = []
        for row in self.rows:
            ratio = [DASH] * 3
            if row["speedup"] is not None:
                interval = f"{row['speedup_low']:.2f} to {row['speedup_high']:.2f}"
                ratio = [f"{row['speedup']:.2f}", interval, format_number(row["over_p50_ms"])]
            where = [row[name] for name in COLUMNS[:5]]
            times = [format_number(row[name]) for name in ("p50_ms", "p90_ms", "p99_ms")]
            shown.append((*where, format_number(row["items_per_second"], 1), *times, *ratio))
        if len(self.found.models) == 1:
            return _aligned([(engine, *rest) for engine, _, *rest in shown], (SHOWN[0], *SHOWN[2:]), 1)
        return _aligned(shown, SHOWN, 2)


def _row(timing: Timing) -> tuple:
    scenario = timing.scenario
    found = summarize_latency(timing.seconds, scenario.batch_size)
    over: tuple = (None,) * 5
    if timing.baseline is not None:
        ratio, interval = speedup(timing.baseline, timing.seconds)
        over = (ratio, *interval, timing.over, 1e3 * float(np.median(timing.baseline)))
    where = (timing.engine, timing.model, scenario.batch_size, scenario.sequence_length, scenario.threads)
    percentiles = (found.p50_ms, found.p90_ms, found.p99_ms)
    return (*where, found.throughput, *found.throughput_interval, *percentiles, *over, len(timing.seconds))


def _aligned(rows: list[tuple], columns: tuple[str, ...], left: int) -> str:
    """A table whose first columns are words, and the others numbers."""
    aligned = ("left",) * left + ("right",) * (len(columns) - left)
    return tabulate(rows, columns, disable_numparse=True, colalign=aligned)
