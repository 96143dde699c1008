"""Latency and throughput of every exported model in every engine and scenario."""

import math

import pandas as pd

from obert.experiment.schema import Scenario
from obert.foundation import registry
from obert.records.record import Record
from obert.statistics.formatting import DASH, format_number
from obert.tables import Note, Results, Table
from obert.tables._engines import MARK, OVER, THROUGHPUT, engine_notes, marked, of_dense, was_under_load
from obert.tables._measured import DENSE

VALUES = ("throughput", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "speedup")
COLUMNS = (
    "task", "model", "sparsity", "engine", "batch_size", "sequence_length", "threads", *VALUES, "speedup_low",
    "speedup_high", "own_speedup", "linear_speedup", "n", "dense_p50_ms", "under_load",
)  # fmt: skip


class Latency(Table):
    """One row a model, engine and scenario."""

    title = "Latency and throughput"
    caption = (
        "Throughput in items/s from the median of n timed batches, percentiles of a batch in ms. Speed-up is "
        f"{OVER}, whose median there stands beside it, with its 95 % paired-bootstrap interval. Over its own: over the "
        "dense model in the same engine; that of the linear layers alone where an engine can tell. First seed. "
        f"{MARK}: timed while the machine was busy with something else."
    )

    section = "Speed"
    headed_by = ("task", "model", "sparsity %")

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for record in results.of_stage("benchmark"):
            scenarios = [Scenario.model_validate(values) for values in record.details.get("scenarios", [{}])]
            for engine in registry.names("engines"):
                places = [engine, *(f"{engine}_{scenario}" for scenario in scenarios[1:])]
                for place, scenario in zip(places, scenarios, strict=True):
                    if f"{place}{THROUGHPUT}" in record.metrics:
                        rows.append(_row(record, engine, place, scenario))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        shown = {name: content[name] for name in ("task", "model")}
        shown["sparsity %"] = [format_number(100 * value, 1) for value in content["sparsity"]]
        shown["engine"] = content["engine"]
        for name, label in (("batch_size", "batch"), ("sequence_length", "length"), ("threads", "threads")):
            shown[label] = [format_number(value, 0) for value in content[name]]
        speeds = content[["throughput", "under_load"]].itertuples(index=False)
        shown["items/s"] = [marked(format_number(value, 1), under_load) for value, under_load in speeds]
        for percentile in ("p50", "p90", "p99"):
            shown[f"{percentile} ms"] = [format_number(value, 1) for value in content[f"latency_{percentile}_ms"]]
        shown["dense p50 ms"] = [format_number(value, 1) for value in content["dense_p50_ms"]]
        ratios = content[["speedup", "speedup_low", "speedup_high"]].itertuples(index=False)
        shown["speed-up"] = [DASH if math.isnan(v) else f"{v:.2f} [{low:.2f}, {high:.2f}]" for v, low, high in ratios]
        for name, label in (("own_speedup", "over its own"), ("linear_speedup", "of linear layers")):
            if content[name].notna().any():
                shown[label] = [format_number(value, 2) for value in content[name]]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        return engine_notes(results)


def _row(record: Record, engine: str, place: str, scenario: Scenario) -> tuple:
    key, found = record.key, [record.metrics.get(f"{place}_{name}") for name in VALUES]
    said = record.details.get("engines", {}).get(place, {})
    low, high = said.get("speedup_interval", (math.nan, math.nan))
    own = said["candidate"]["throughput"] / said[DENSE]["throughput"] if DENSE in said else math.nan
    seconds = said.get("linear_seconds", {})
    linear = seconds["dense"] / seconds["candidate"] if "dense" in seconds else math.nan
    return (
        key.task, f"{key.recipe}: {key.method or DENSE}", key.sparsity or 0.0, engine, scenario.batch_size,
        scenario.sequence_length, scenario.threads, *(math.nan if score is None else score.value for score in found),
        low, high, own, linear, record.metrics[f"{place}{THROUGHPUT}"].count,
        of_dense(record, place, "p50_ms"), was_under_load(record),
    )  # fmt: skip
