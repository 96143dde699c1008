"""Every pruned model with its compression ratio, its theoretical speed-up, and the measured one beside them."""

import math
from functools import partial

import pandas as pd

from obert.statistics.formatting import format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._engines import OVER, SPEEDUP, engine_notes, engines_of, size_and_speed
from obert.tables._measured import metric_of
from obert.tables._ranking import texts_by_row
from obert.tables._ratios import compression_ratio, pruned_groups, theoretical_speedup

COLUMNS = (
    "task", "metric", "recipe", "method", "sparsity", "compression_ratio", "theoretical_speedup", "score_mean",
    "score_std", "n",
)  # fmt: skip


class OperatingPoints(Table):
    """A row a pruned model, by task, recipe and method; the sparsest last."""

    title = "Compression ratios and speed-ups"
    caption = (
        "Compression ratio: parameters of the dense model over those of the model that are not zero, embeddings "
        "included. Theoretical speed-up: multiply-adds of the dense model over those that zeros leave, for one example "
        "of the export's length; products of activations with each other stay. Both of the first seed's model and "
        f"seeds' mean sparsity. Measured speed-up: {OVER}."
    )

    section = "Trade-offs"
    split_by = ("task", "metric")
    headed_by = ("recipe",)

    def build(self, results: Results) -> pd.DataFrame:
        engines = engines_of(results)
        rows = []
        for group in pruned_groups(results):
            found = size_and_speed(results, group.key, engines)
            row = {
                "task": group.key.task,
                "metric": metric_of(results, group.key.task),
                "recipe": group.key.recipe,
                "method": group.method,
                "sparsity": group.sparsity,
                "compression_ratio": compression_ratio(results, group),
                "theoretical_speedup": theoretical_speedup(results, group),
                **group.score_columns,
            }
            rows.append(row | {f"{engine}{SPEEDUP}": found[f"{engine}{SPEEDUP}"] for engine in engines})
        content = pd.DataFrame(rows, columns=[*COLUMNS, *(f"{engine}{SPEEDUP}" for engine in engines)])
        order = {task: place for place, task in enumerate(results.tasks)}
        return content.sort_values(
            ["task", "recipe", "method", "sparsity"],
            key=lambda column: column.map(order) if column.name == "task" else column,
            ignore_index=True,
        )

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {name: content[name] for name in ("task", "metric", "recipe", "method")}
        shown["sparsity %"] = per_row(lambda value: format_number(100 * value, 1), "sparsity")
        shown["compression ratio"] = per_row(format_number, "compression_ratio")
        shown["theoretical speed-up"] = per_row(format_number, "theoretical_speedup")
        for column in content.columns:
            if column.endswith(SPEEDUP) and column not in COLUMNS:
                shown[f"{column.removesuffix(SPEEDUP)} speed-up"] = per_row(format_number, column)
        shown["score"] = per_row(format_summary, "score_mean", "score_std", "n")
        return pd.DataFrame(shown)

    def variants(self, content: pd.DataFrame) -> list[str]:
        found = content[["task", "recipe", "method", "sparsity"]].itertuples(index=False)
        return [f"{task}/{recipe}/{method}-{sparsity:g}" for task, recipe, method, sparsity in found]

    def notes(self, results: Results) -> tuple[Note, ...]:
        every = pruned_groups(results)
        counted = [not math.isnan(theoretical_speedup(results, group)) for group in every]
        absent = len(counted) - sum(counted)
        text = f"No multiply-adds were counted for {absent} of {len(counted)} models: they, or their teachers, were "
        note = Note(f"{text}not exported, or exported by a version that did not count.")
        return (*engine_notes(results), *([note] if absent else []))
