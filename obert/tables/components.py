"""Cost and benefit of pruning each part of a model: sizes, multiply-adds, bytes, speed, and what it costs in score."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from obert.records.record import COMPONENTS, Record
from obert.statistics.formatting import format_difference, format_number
from obert.tables import Note, Results, Table
from obert.tables._engines import (
    MARK,
    OVER,
    SPEEDUP,
    UNDER_LOAD,
    engine_notes,
    engines_of,
    marked,
    of_dense,
    was_under_load,
)
from obert.tables._measured import DENSE, Group, metric_of
from obert.tables._ranking import texts_by_row
from obert.tables._scopes import (
    NEEDED,
    PARTS,
    Family,
    change,
    encoder_sparsity,
    families,
    nearest,
    percent,
    whole_sparsity,
)

FLOAT, INTEGER = 4, 1  # bytes of a weight
SIZES = (
    "parameters", "multiply_adds", "length", "share", "part_sparsity", "remaining_share", "dense_mb", "bitmap_mb",
    "gzip_mb", "int8_mb",
)  # fmt: skip
ENCODER_CHANGE = ("encoder_change", "encoder_change_low", "encoder_change_high", "encoder_change_n")
ZEROS_CHANGE = ("zeros_change", "zeros_change_low", "zeros_change_high", "zeros_change_n", "zeros_target")
SPEED = ("_latency_p50_ms", "_dense_p50_ms", SPEEDUP, f"{SPEEDUP}_low", f"{SPEEDUP}_high")
COLUMNS = ("model", "task", "metric", "method", "sparsity", "part", "recipe", *SIZES, *ENCODER_CHANGE, *ZEROS_CHANGE)


class Components(Table):
    """The dense model part by part, then each sparsity of the encoder with one part more pruned at a time."""

    title = "Components: what pruning a part saves and costs"
    caption = (
        "Rows of the dense model first. Below, a row of embeddings or head is the model in which that part is pruned "
        "too, by a cut of its own or in one with the encoder. Multiply-adds are those of the weight matrices for one "
        "sequence of the given length, and share is their part of all; a look-up has none, a tied output counts for "
        "the embeddings with each token that it scores. MB are 10^6 bytes of the weight matrices alone: dense in "
        "float32; bitmap, one bit a weight and the non-zeros in float32; gzip, the dense form of an exported model "
        "after gzip at level 6; int8, dense with one byte a weight. Change is the score less that of the model whose "
        "encoder alone is pruned, in points with its 95 % interval and the number of seeds that both "
        "have: at equal encoder sparsity, and with as many zeros in all, for which the encoder alone has the target "
        f"in brackets. Latency is the median of a batch. Speed-up is {OVER}, whose median there stands beside it, with "
        f"its 95 % interval. All of the first seed. {MARK}: timed while the machine was busy with something else."
    )

    section = "How to prune a language model"
    paper = "how_to_prune"
    headed_by = ("model", "task", "method", "sparsity %")

    def build(self, results: Results) -> pd.DataFrame:
        engines = engines_of(results)
        rows: list[dict] = []
        for task in results.tasks:
            rows += _dense_rows(results, task, engines)
            rows += [row for family in _compared(results, task) for row in _family_rows(results, family, engines)]
        columns = [*COLUMNS, *(f"{engine}{name}" for engine in engines for name in SPEED)]
        columns += [UNDER_LOAD] if engines else []
        return pd.DataFrame(rows, columns=columns)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {name: content[name] for name in ("model", "task", "method")}
        shown["sparsity %"] = percent(content["sparsity"])
        shown |= {name: content[name] for name in ("part", "recipe")}
        shown["parameters"] = per_row(lambda v: format_number(v, 0), "parameters")
        shown["multiply-adds (M)"] = per_row(lambda v: format_number(v / 1e6, 3), "multiply_adds")
        shown["length"] = per_row(lambda v: format_number(v, 0), "length")
        shown["share %"] = percent(content["share"], 3)
        shown["zeros of the part %"] = percent(content["part_sparsity"], 2)
        shown["share of what remains %"] = percent(content["remaining_share"])
        for name in ("dense", "bitmap", "gzip", "int8"):
            shown[f"{name} MB"] = per_row(lambda v: format_number(v, 2), f"{name}_mb")
        shown["change at equal encoder sparsity"] = per_row(_change, *ENCODER_CHANGE)
        shown["change at equal zeros"] = per_row(_change, *ZEROS_CHANGE)
        for column in content.columns:
            engine = column.removesuffix(SPEED[0])
            if engine != column:
                shown[f"{engine} ms"] = per_row(_milliseconds, column, UNDER_LOAD)
                shown[f"{engine}: dense ms"] = per_row(lambda v: format_number(v, 2), f"{engine}{SPEED[1]}")
                shown[f"{engine} speed-up"] = per_row(_speedup, *(f"{engine}{name}" for name in SPEED[2:]))
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        products = {}
        for task in results.tasks:
            costs = _costs(results, task)
            if costs:
                weights = sum(costs["multiply_adds"][part] for part in PARTS)
                others = costs["multiply_adds"]["products"]
                products[
                    f"Attention's products of activations are not in the table. For {costs['length']} tokens they are "
                    f"{others / 1e6:,.3f} M multiply-adds, {100 * others / (others + weights):.2f} % of the model's."
                ] = None
        compared = any(_compared(results, task) for task in results.tasks)
        return (*(() if compared else (Note(NEEDED),)), *map(Note, products), *engine_notes(results))


def _compared(results: Results, task: str) -> list[Family]:
    """Settings in which one part more than the encoder was pruned."""
    return [family for family in families(results, task) if any(map(_part_of, family.others))]


def _part_of(scope: str) -> str | None:
    """The part that a scope has besides the encoder, if it is one."""
    return next((part for part in PARTS[1:] if scope.startswith(f"+ {part}")), None)


def _change(mean: float, low: float, high: float, n: float, target: float = math.nan) -> str:
    text = format_difference(mean, low, high)
    if math.isnan(mean):
        return text
    return f"{text} (n={n:.0f})" + ("" if math.isnan(target) else f" ({100 * target:g} %)")


def _milliseconds(value: float, under_load: object) -> str:
    return marked(format_number(value, 2), under_load)


def _speedup(ratio: float, low: float, high: float) -> str:
    bounds = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return format_number(ratio) + bounds


def _dense_rows(results: Results, task: str, engines: list[str]) -> Iterator[dict]:
    dense = results.dense(task)
    export = _of(results, dense, "export")
    if export is not None and export.sparsity is not None:
        for part in export.sparsity.parts:
            yield _row(results, dense, DENSE, 0.0, part, engines)


def _family_rows(results: Results, family: Family, engines: list[str]) -> Iterator[dict]:
    """Of each encoder alone: itself, and the models with one part more pruned at the same encoder sparsity."""
    for reference in family.references:
        method = reference.method
        yield _row(results, reference.records[0], method, reference.sparsity, "encoder", engines)
        for name, others in family.others.items():
            part = _part_of(name)
            group = None if part is None else nearest(others, reference, encoder_sparsity)
            if group is None:
                continue
            row = _row(results, group.records[0], method, reference.sparsity, part, engines)
            row |= dict(zip(ENCODER_CHANGE, _changes(results, group, reference), strict=True))
            alone = nearest(family.references, group, whole_sparsity)
            if alone is not None:
                changes = (*_changes(results, group, alone), alone.sparsity)
                row |= dict(zip(ZEROS_CHANGE, changes, strict=True))
            yield row


def _changes(results: Results, group: Group, reference: Group) -> tuple[float, float, float, int]:
    seeds = {record.key.seed for record in group.records} & {record.key.seed for record in reference.records}
    return *change(results, group, reference), len(seeds)


def _row(results: Results, record: Record, method: str, sparsity: float, part: str, engines: list[str]) -> dict:
    """A part of a model, of the first seed: what it weighs, and how fast the model is."""
    task = record.key.task
    named = {"model": record.model.get("source", ""), "task": task, "metric": metric_of(results, task)}
    named |= {"method": method, "sparsity": sparsity, "part": part, "recipe": record.key.recipe}
    return named | _sizes(results, record, part) | _speeds(_of(results, record, "benchmark"), engines)


def _sizes(results: Results, record: Record, part: str) -> dict[str, float]:
    export = _of(results, record, "export")
    counted = record.sparsity or (export.sparsity if export else None)
    row = {}
    if counted is not None and part in counted.parts:
        size, zeros = counted.parts[part].size, counted.parts[part].zeros
        row = {
            "parameters": size,
            "part_sparsity": zeros / size,
            "remaining_share": (size - zeros) / sum(other.size - other.zeros for other in counted.parts.values()),
            "dense_mb": FLOAT * size / 1e6,
            "bitmap_mb": (size / 8 + FLOAT * (size - zeros)) / 1e6,
            "int8_mb": INTEGER * size / 1e6,
        }
    own = export.details.get(COMPONENTS, {}) if export else {}
    if own:
        row["gzip_mb"] = own["gzip_bytes"][part] / 1e6
    costs = own or _costs(results, record.key.task)
    if costs:
        row["multiply_adds"], row["length"] = costs["multiply_adds"][part], costs["length"]
        row["share"] = costs["multiply_adds"][part] / sum(costs["multiply_adds"][name] for name in PARTS)
    return row


def _speeds(timed: Record | None, engines: list[str]) -> dict[str, float]:
    if timed is None:
        return {}
    row = {UNDER_LOAD: was_under_load(timed)}
    for engine in engines:
        row |= {f"{engine}{n}": timed.metrics[f"{engine}{n}"].value for n in SPEED if f"{engine}{n}" in timed.metrics}
        row[f"{engine}{SPEED[1]}"] = of_dense(timed, engine, "p50_ms")
        interval = timed.details.get("engines", {}).get(engine, {}).get("speedup_interval")
        if interval:
            row |= dict(zip((f"{engine}{name}" for name in SPEED[3:]), interval, strict=True))
    return row


def _costs(results: Results, task: str) -> dict[str, Any]:
    """Costs of the parts of a task's dense model; pruning does not change how many multiply-adds there are."""
    export = _of(results, results.dense(task), "export")
    return export.details.get(COMPONENTS, {}) if export else {}


def _of(results: Results, record: Record | None, stage: str) -> Record | None:
    """The export or the timing of a trained model."""
    return None if record is None else results.by_key.get(record.key.at(stage))
