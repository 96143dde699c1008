"""Exported models with what they score, weigh and how fast they run, measured and published (oBERT, Table 17)."""

import math
from dataclasses import dataclass, field, replace

from obert.plan import RunKey
from obert.records import Record
from obert.tables import Results
from obert.tables._engines import THROUGHPUT, engines_of
from obert.tables._measured import metric_of, recovery, score

PAPER, TABLE = "obert", "17"
PATTERNS = {"1x4": "4-block"}
SPEEDUP = "_speedup"


@dataclass(frozen=True)
class Speed:
    """In one engine: items/s, times the dense model's, and the score of the file that was timed, in percent."""

    throughput: float = math.nan
    speedup: float = math.nan
    score: float = math.nan


@dataclass(frozen=True)
class Deployed:
    """One model, exported.

    Attributes:
        compression: `dense`, a pattern, or either `and QAT`.
        model: recipe and method, empty for a published one.
        recall: score as percent of the own dense model's.
        size_gzip_mb: of the exported file, in MB (10^6 bytes).
        compression_ratio: the dense model's size over it.
        weights: of the encoder's linear layers that are not zero.
        speeds: by engine.
    """

    task: str
    metric: str
    layers: int | None
    sparsity: float
    compression: str
    model: str = ""
    score: float = math.nan
    recall: float = math.nan
    size_gzip_mb: float = math.nan
    compression_ratio: float = math.nan
    weights: float = math.nan
    speeds: dict[str, Speed] = field(default_factory=dict)

    @property
    def place(self) -> tuple:
        """What a published and a measured model have in common."""
        return self.task, self.layers, self.sparsity, self.compression


def measured(results: Results) -> list[Deployed]:
    """Every exported model, in the order of the plan."""
    found = []
    for export in results.stage("export"):
        trained = _trained(results, export.key)
        if trained is None:
            continue
        dense = results.dense(export.key.task)
        dense_export = None if dense is None else results.by_key.get(dense.key.at("export"))
        size = _metric(export, "model_size_gzip_mb")
        sparsity = export.sparsity.measured if export.sparsity else 0.0
        found.append(
            Deployed(
                task=export.key.task,
                metric=metric_of(results, export.key.task),
                layers=trained.model.get("layers"),
                sparsity=export.key.sparsity or 0.0,
                compression=_compression(results, trained),
                model=f"{trained.key.recipe}: {trained.key.method or 'dense'}",
                score=score(trained),
                recall=recovery(score(trained), score(dense)),
                size_gzip_mb=size,
                compression_ratio=_metric(dense_export, "model_size_gzip_mb") / size,
                weights=trained.model.get("prunable_parameters", math.nan) * (1 - sparsity),
                speeds=_speeds(results, export.key),
            )
        )
    return found


def published(results: Results) -> list[Deployed]:
    """The rows of Table 17."""
    cells: dict[tuple, dict[str, float]] = {}
    for number in results.published.table(PAPER, TABLE):
        cells.setdefault((number.task, number.layers, number.sparsity, number.label), {})[number.metric] = number.value
    rows = []
    for (task, layers, sparsity, label), values in cells.items():
        speed = Speed(values["throughput"], values["speedup"])
        sizes = {name: values[name] for name in ("size_gzip_mb", "compression_ratio")}
        rows.append(
            Deployed(task, "f1", layers, sparsity, label, score=values["f1"], speeds={"deepsparse": speed}, **sizes)
        )
    dense = next(row.score for row in rows if row.compression == "dense")
    return [replace(row, recall=recovery(row.score, dense)) for row in rows]


def _trained(results: Results, key: RunKey) -> Record | None:
    """The run that the model of an export is from."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity, "seed": key.seed}
    stages = ("teacher", "transfer", "downstream", "quantize")
    return next((record for stage in stages for record in results.stage(stage, **chosen)), None)


def _compression(results: Results, trained: Record) -> str:
    if trained.key.method is None:
        name = "dense"
    else:
        pattern = _pruning(results, trained).spec["recipe"].get("pattern", "unstructured")
        name = PATTERNS.get(pattern, pattern) if isinstance(pattern, str) else "mixed"
    return f"{name} and QAT" if trained.key.stage == "quantize" else name


def _pruning(results: Results, record: Record) -> Record:
    """The run that a model's zeros are from: itself, or one that it started from."""
    while record.key.stage in ("quantize", "transfer"):
        chosen = {"recipe": record.key.upstream, "method": record.key.method, "sparsity": record.key.sparsity}
        stages = ("upstream", "transfer", "downstream")
        sources = [source for stage in stages for source in results.stage(stage, **chosen)]
        sources = [r for r in sources if r.key.stage == "upstream" or r.key.task == record.key.task]
        if not sources:
            return record
        record = sources[0]
    return record


def _speeds(results: Results, key: RunKey) -> dict[str, Speed]:
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    speeds = {}
    for record in results.stage("benchmark", **chosen)[:1]:
        for engine in engines_of(results):
            if (name := f"{engine}{THROUGHPUT}") in record.metrics:
                own = _metric(record, f"{engine}{SPEEDUP}") if key.method or "@" in key.recipe else 1.0
                speeds[engine] = Speed(
                    record.metrics[name].value, own, _metric(record, f"{engine}_{metric_of(results, key.task)}")
                )
    return speeds


def _metric(record: Record | None, name: str) -> float:
    return record.metrics[name].value if record is not None and name in record.metrics else math.nan
