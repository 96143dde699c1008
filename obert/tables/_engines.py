"""The engines behind a table's speeds, and what a reader must know of them."""

import math
from collections.abc import Iterator

import pandas as pd

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.records.load import IN_USE, busy_before
from obert.records.record import Record
from obert.statistics.formatting import DASH
from obert.tables import Note, Results

THROUGHPUT, SPEEDUP = "_throughput", "_speedup"
DENSE_THROUGHPUT = f"_dense{THROUGHPUT}"  # of the dense model in the same process
UNDER_LOAD, MARK = "under_load", "\N{DAGGER}"
LOADED = f"{MARK} Timed while the machine was busy with something else. Take these with care, or time them again:"
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


def timing(results: Results, key: RunKey) -> Record | None:
    """The timing of a run's exported model, if there is one: of the first seed."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    return next(iter(results.of_stage("benchmark", **chosen)), None)


def size_and_speed(results: Results, key: RunKey, engines: list[str]) -> dict[str, float]:
    """Of a run's exported model, as far as they were measured: by metric, with UNDER_LOAD."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    timed, metrics = timing(results, key), {}
    for record in (timed, *results.of_stage("export", **chosen)[:1]):
        metrics |= {name: value.value for name, value in record.metrics.items()} if record else {}
    row = {"size_gzip_mb": metrics.get("model_size_gzip_mb", math.nan)}
    for engine in engines:
        row |= {f"{engine}{kind}": metrics.get(f"{engine}{kind}", math.nan) for kind in (THROUGHPUT, SPEEDUP)}
        row[f"{engine}{DENSE_THROUGHPUT}"] = of_dense(timed, engine, "throughput")
    return row | {UNDER_LOAD: math.nan if timed is None else was_under_load(timed)}


def of_dense(timed: Record | None, place: str, name: str) -> float:
    """Of the dense model that a speed-up is over, timed in turns with the model; NaN where it is over nothing.

    Args:
        place: an engine, with the scenario where it is a further one.
        name: `throughput`, or a percentile such as `p50_ms`.
    """
    said = {} if timed is None else timed.details.get("engines", {}).get(place, {})
    return said.get(said.get("speedup_over"), {}).get(name, math.nan)


def speedup_interval(timed: Record | None, engine: str) -> tuple[float, float]:
    """The 95 % interval of a speed-up; NaN where it has none, and 1 for a dense model that is over nothing."""
    if timed is None or f"{engine}{SPEEDUP}" not in timed.metrics:
        return 1.0, 1.0
    return timed.details.get("engines", {}).get(engine, {}).get("speedup_interval", (math.nan, math.nan))


def was_under_load(timed: Record) -> bool:
    """Whether the machine was busy with something else when the timing began."""
    return busy_before(timed) is not None


def marked(text: str, under_load: object) -> str:
    """A speed with MARK if it was measured under load."""
    return text if text == DASH or pd.isna(under_load) or not under_load else f"{text} {MARK}"


def machine_text(timed: Record) -> str:
    """What a timing was made on, as the kernel reports it, e.g. "Xeon (avx2, avx512f), 8 cores, 4 threads"."""
    said = timed.environment
    gpu = f", {said['gpu']}" if said.get("gpu") else ""
    flags = f" ({', '.join(said['isa_flags'])})" if said.get("isa_flags") else ""
    cores = f", {said['cores']} cores" if said.get("cores") else ""
    threads = f"{timed.threads} thread{'' if timed.threads == 1 else 's'}"
    return f"{said.get('cpu') or 'unknown processor'}{flags}{cores}{gpu}, {threads}"


def engine_notes(results: Results) -> tuple[Note, ...]:
    """Where engines were timed, why one has no timing, or uses a fallback, and what was timed under load.

    Runs are listed unless the note holds for all of them.
    """
    records = results.of_stage("benchmark")
    runs: dict[str, list[str]] = {}
    for record in records:
        for text in _texts(record):
            runs.setdefault(text, []).append(record.key.path.as_posix())
    notes = [Note(text, tuple(paths) if len(paths) < len(records) else ()) for text, paths in runs.items()]
    loads = tuple(
        f"{record.key.path.as_posix()}: {record.details[IN_USE]:.1f} cores in use"
        for record in records
        if was_under_load(record)
    )
    return (*notes, *((Note(LOADED, loads),) if loads else ()))


def _texts(record: Record) -> Iterator[str]:
    names = [name for name in registry.names("engines") if f"{name}{THROUGHPUT}" in record.metrics]
    if names:
        said = [(name, record.details.get("engines", {}).get(name, {}).get("version")) for name in names]
        engines = ", ".join(f"{name} {version}" if version else name for name, version in said)
        yield f"Timed on {machine_text(record)}: {engines}."
    for engine, reason in record.details.get("skipped", {}).items():
        yield f"{engine} was not timed. {reason}."
    for engine, reason in record.details.get("failed", {}).items():
        yield f"{engine} failed: {reason.splitlines()[0].removesuffix('.')}."
    for engine, said in record.details.get("engines", {}).items():
        if operator := said.get("unsupported", {}).get("candidate"):
            yield f"{engine} runs a part of the model with a slower fallback. First operator: {operator}."
