"""The engines behind a table's speeds, and what a reader must know of them."""

import math
from collections.abc import Iterator

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.records.record import Record
from obert.tables import Note, Results

THROUGHPUT, SPEEDUP = "_throughput", "_speedup"
OVER = (
    "over the dense float32 model in ONNX Runtime, timed in turns in the same process, whichever the engine (on a GPU: "
    "over the dense model there)"
)


def engines_of(results: Results) -> list[str]:
    """Every engine that was timed, skipped or failed, sorted. The further scenarios of an engine are left out."""
    found = set()
    for record in results.of_stage("benchmark"):
        found.update(name.removesuffix(THROUGHPUT) for name in record.metrics if name.endswith(THROUGHPUT))
        found.update(*(record.details.get(kind, ()) for kind in ("skipped", "failed")))
    return sorted(found & set(registry.names("engines")))


def size_and_speed(results: Results, key: RunKey, engines: list[str]) -> dict[str, float]:
    """Of a run's exported model, as far as they were measured, by metric."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    metrics = {}
    for stage in ("benchmark", "export"):
        for record in results.of_stage(stage, **chosen)[:1]:
            metrics |= {name: value.value for name, value in record.metrics.items()}
    row = {"size_gzip_mb": metrics.get("model_size_gzip_mb", math.nan)}
    for engine in engines:
        row |= {f"{engine}{kind}": metrics.get(f"{engine}{kind}", math.nan) for kind in (THROUGHPUT, SPEEDUP)}
    return row


def speedup_interval(results: Results, key: RunKey, engine: str) -> tuple[float, float]:
    """The 95 % interval of an exported model's speed-up; NaN where a speed-up has none, and 1 where nothing is over."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    for record in results.of_stage("benchmark", **chosen)[:1]:
        if f"{engine}{SPEEDUP}" in record.metrics:
            return record.details.get("engines", {}).get(engine, {}).get("speedup_interval", (math.nan, math.nan))
    return 1.0, 1.0  # the dense model in the reference engine


def engine_notes(results: Results) -> tuple[Note, ...]:
    """Why an engine has no timing, or uses a fallback. Runs are listed unless the note holds for all of them."""
    records = results.of_stage("benchmark")
    runs: dict[str, list[str]] = {}
    for record in records:
        for text in _texts(record):
            runs.setdefault(text, []).append(record.key.path.as_posix())
    return tuple(Note(text, tuple(paths) if len(paths) < len(records) else ()) for text, paths in runs.items())


def _texts(record: Record) -> Iterator[str]:
    for engine, reason in record.details.get("skipped", {}).items():
        yield f"{engine} was not timed. {reason}."
    for engine, reason in record.details.get("failed", {}).items():
        yield f"{engine} failed: {reason.splitlines()[0].removesuffix('.')}."
    for engine, said in record.details.get("engines", {}).items():
        if operator := said.get("unsupported", {}).get("candidate"):
            yield f"{engine} runs a part of the model with a slower fallback. First operator: {operator}."
