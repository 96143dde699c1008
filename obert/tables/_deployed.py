"""Exported models with what they score, weigh and how fast they run, measured and published."""

import math
from dataclasses import dataclass, field, replace

from obert.experiment.keys import RunKey
from obert.experiment.schema import Scenario
from obert.records.record import Record
from obert.stages import stage
from obert.tables import Results
from obert.tables._chance import Scale
from obert.tables._engines import SPEEDUP, THROUGHPUT, engines_of, of_dense, was_under_load
from obert.tables._measured import DENSE, metric_of, pattern_name, score
from obert.tables._planned import as_planned

PATTERNS = {"1x4": "4-block"}


@dataclass(frozen=True)
class Speed:
    """In one engine: items/s, times the dense model's there or in the reference, the timed file's score in percent.

    Attributes:
        dense: items/s of the dense model that the speed-up is over, in the same process.
        under_load: whether the machine was busy with something else.
    """

    throughput: float = math.nan
    speedup: float = math.nan
    score: float = math.nan
    dense: float = math.nan
    under_load: bool = False


@dataclass(frozen=True)
class Deployed:
    """One model, exported.

    Attributes:
        compression: `dense`, a pattern, or either `and QAT`; another paper's name of its model.
        model: recipe and method, empty for a published one.
        method: of pruning, `dense` for what is not pruned.
        key: of the run that times it, None for a published one.
        chance: the score of the best single answer to everything.
        recall: what is left of the dense model's lead over chance, in percent; of a published one, as its paper has it,
            the score as a percentage of the dense model's.
        size_mb: of the exported file, in MB (10^6 bytes).
        size_gzip_mb: of the same after gzip.
        compression_ratio: the dense model's gzipped size over it.
        weights_millions: of the encoder's linear layers that are not zero.
        weights_ratio: the dense model's over them.
        speeds: by engine.
    """

    task: str
    metric: str
    layers: int | None
    sparsity: float
    compression: str
    model: str = ""
    method: str = DENSE
    key: RunKey | None = None
    score: float = math.nan
    chance: float = math.nan
    recall: float = math.nan
    size_mb: float = math.nan
    size_gzip_mb: float = math.nan
    compression_ratio: float = math.nan
    weights_millions: float = math.nan
    weights_ratio: float = math.nan
    speeds: dict[str, Speed] = field(default_factory=dict)

    @property
    def is_quantized(self) -> bool:
        return self.compression.endswith(" and QAT")

    @property
    def place(self) -> tuple:
        """What a published and a measured model have in common."""
        return self.task, self.layers, self.sparsity, self.compression


def measured_models(results: Results, scenario: tuple[int, int] | None = None) -> list[Deployed]:
    """Every exported model, in the order of the plan.

    Args:
        scenario: batch size and sequence length of the speeds where they were timed; the experiment's own by default.
    """
    found, scales = [], {task: Scale.of(results, task) for task in results.tasks}
    for export in results.of_stage("export"):
        trained = results.by_key.get(results.origins.get(export.key))
        if trained is None:
            continue
        dense = results.dense(export.key.task)
        dense_export = None if dense is None else results.by_key.get(dense.key.at("export"))
        size = _metric(export, "model_size_gzip_mb")
        weights = _weights(trained, export)
        found.append(
            Deployed(
                task=export.key.task,
                metric=metric_of(results, export.key.task),
                layers=trained.model.get("layers"),
                sparsity=export.key.sparsity or 0.0,
                compression=_compression(results, trained),
                model=f"{trained.key.recipe}: {trained.key.method or DENSE}",
                method=trained.key.method or DENSE,
                key=export.key.at("benchmark"),
                score=score(trained),
                chance=scales[export.key.task].chance,
                recall=scales[export.key.task].recovery(score(trained)),
                size_mb=_metric(export, "model_size_mb"),
                size_gzip_mb=size,
                compression_ratio=_metric(dense_export, "model_size_gzip_mb") / size,
                weights_millions=weights,
                weights_ratio=_weights(dense, dense_export) / weights if weights else math.nan,
                speeds=_speeds(results, export.key, trained is dense, scenario),
            )
        )
    return found


def planned_models(results: Results) -> list[Deployed]:
    """Every model that is to be exported, with or without a record."""
    return measured_models(as_planned(results))


def published_models(results: Results, paper: str, table: str, engine: str) -> list[Deployed]:
    """The rows of a paper's table, with the speeds in `engine`."""
    cells: dict[tuple, dict[str, float]] = {}
    methods = {}
    for number in results.published.table(paper, table):
        place = (number.task, number.layers, number.sparsity, number.label)
        cells.setdefault(place, {})[number.metric] = number.value
        methods[place] = number.method or DENSE
    dense = next(values["f1"] for (*_, label), values in cells.items() if label == "dense")
    rows = []
    for (task, layers, sparsity, label), values in cells.items():
        speed = Speed(values.pop("throughput", math.nan), values.pop("speedup"))
        found = values.pop("f1")
        values |= {"score": found, "recall": 100 * found / dense}
        method = methods[task, layers, sparsity, label]
        rows.append(Deployed(task, "f1", layers, sparsity, label, method=method, speeds={engine: speed}, **values))
    return rows


def _compression(results: Results, trained: Record) -> str:
    if trained.key.method is None:
        name = DENSE
    else:
        pattern = _pattern(results, trained.key)
        name = PATTERNS.get(pattern, pattern)
    return f"{name} and QAT" if trained.key.stage == "quantize" else name


def _pattern(results: Results, key: RunKey) -> str:
    """The pattern of a model's zeros: that of the run in its history that pruned."""
    pruning = next((run for run in results.history(key) if stage(run.stage).prunes), key)
    return pattern_name(results.specification(pruning).get("recipe") or {})


def _weights(trained: Record | None, export: Record | None) -> float:
    """Millions of prunable weights of an exported model that are not zero."""
    if trained is None or export is None:
        return math.nan
    sparsity = export.sparsity.measured if export.sparsity else 0.0
    return trained.model.get("prunable_parameters", math.nan) * (1 - sparsity) / 1e6


def relative_to(model: Deployed, dense: Deployed) -> Deployed:
    """A model with recall, ratios and speed-ups over another dense model than its task's."""
    speeds = {}
    for engine, speed in model.speeds.items():
        other = dense.speeds.get(engine, Speed())
        over = other.throughput / other.speedup
        speeds[engine] = replace(speed, speedup=speed.throughput / over, dense=over)
    return replace(
        model,
        recall=Scale(dense.score, model.chance).recovery(model.score),
        compression_ratio=dense.size_gzip_mb / model.size_gzip_mb,
        weights_ratio=dense.weights_millions / model.weights_millions if model.weights_millions else math.nan,
        speeds=speeds,
    )


def _speeds(results: Results, key: RunKey, is_teacher: bool, scenario: tuple[int, int] | None) -> dict[str, Speed]:
    """The speeds of an exported model by engine. The teacher's is 1 where it is what speed-ups are over."""
    record = results.by_key.get(key.at("benchmark"))
    place, speeds = _place(record, scenario), {}
    for engine in engines_of(results) if record else ():
        if (name := f"{engine}{place}{THROUGHPUT}") in record.metrics:
            own = _metric(record, f"{engine}{place}{SPEEDUP}")
            own = 1.0 if is_teacher and math.isnan(own) else own
            scored = _metric(record, f"{engine}_{metric_of(results, key.task)}")
            dense = of_dense(record, f"{engine}{place}", "throughput")
            speeds[engine] = Speed(record.metrics[name].value, own, scored, dense, was_under_load(record))
    return speeds


def _place(record: Record | None, scenario: tuple[int, int] | None) -> str:
    """What stands behind the engine in the names of a scenario's metrics: nothing for the experiment's own."""
    further = [] if record is None else record.details.get("scenarios", [])[1:]
    found = [one for one in further if (one["batch_size"], one["sequence_length"]) == scenario]
    return f"_{Scenario(**found[0])}" if found else ""


def _metric(record: Record | None, name: str) -> float:
    return record.metrics[name].value if record is not None and name in record.metrics else math.nan
