"""What to prune: the encoder alone, with the embeddings, with the head, or everything, on equal terms."""

from functools import partial

import pandas as pd

from obert.foundation.errors import UserError
from obert.masks.counts import equal_zeros
from obert.statistics.formatting import format_difference, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._collapsed import COLLAPSED, collapsed_runs, collapsed_text
from obert.tables._measured import Group, groups, metric_of, recipe_of
from obert.tables._ranking import DIFFERENCE, texts_by_row
from obert.tables._scopes import (
    ENCODER,
    NEEDED,
    TOLERANCE,
    Family,
    change,
    encoder_sparsity,
    families,
    nearest,
    percent,
    scope_name,
    whole_sparsity,
)

EQUAL_ENCODER, EQUAL_ZEROS, SAME_TARGET = "equal encoder sparsity", "equal zeros", "same target alone"
COLUMNS = (
    "task", "metric", "method", "comparison", "scope", "recipe", "sparsity_target", "encoder_sparsity",
    "whole_model_sparsity", "score_mean", "score_std", "n", *COLLAPSED, *DIFFERENCE,
)  # fmt: skip


class ScopeAblation(Table):
    """Blocks of a run with zeros in the encoder alone and the runs of other scopes that compare with it."""

    title = "Scope: encoder, embeddings and head"
    caption = (
        "Mean ± sample standard deviation over n seeds, in percent. The runs of a block share everything but scope and "
        f"sparsity. With {EQUAL_ENCODER} the encoder has as many zeros in each, and the other parts have none or some. "
        f"With {EQUAL_ZEROS} the whole model has. Both are measured, and may differ by {100 * TOLERANCE:g} points. "
        f"A block of the {SAME_TARGET} holds runs that were asked for the same sparsity and equal neither: parts in "
        "one cut do not lose the same share. The difference is to the encoder alone, with a 95 % "
        "interval over the seeds that both have and the examples."
    )

    section = "How to prune a language model"
    paper = "how_to_prune"
    headed_by = ("task", "method", "comparison")

    def build(self, results: Results) -> pd.DataFrame:
        rows = [row for task in results.tasks for family in families(results, task) for row in _rows(results, family)]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {name: content[name] for name in ("task", "metric", "method", "comparison", "scope", "recipe")}
        shown["target %"] = percent(content["sparsity_target"])
        shown["encoder %"] = percent(content["encoder_sparsity"], 2)
        shown["whole model %"] = percent(content["whole_model_sparsity"], 2)
        shown["score"] = per_row(format_summary, "score_mean", "score_std", "n")
        shown["collapsed"] = per_row(collapsed_text, *COLLAPSED, "n")
        shown["difference to encoder alone"] = per_row(format_difference, *DIFFERENCE)
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        if not any(True for task in results.tasks for _ in families(results, task)):
            return (Note(NEEDED),)
        found = [group for task in results.tasks for group in groups(results, task)]
        wider = [g for g in found if g.key.method and scope_name(recipe_of(g.records[0])) != ENCODER]
        sizes: dict[tuple, set[float]] = {}
        for group in wider:
            for record in group.records:
                if record.sparsity is not None and record.sparsity.parts:
                    counted = tuple((part, layer.size) for part, layer in record.sparsity.parts.items())
                    sizes.setdefault((record.model.get("source", ""), counted), set()).add(group.sparsity)
        return tuple(
            Note(
                f"{source}: the encoder has {_share(dict(counted)):.1f} % of the weights. For as many zeros as these "
                "sparsities of the whole model, the encoder alone needs:",
                tuple(f"{100 * s:g} %: {_needed(dict(counted), s)}" for s in sorted(targets)),
            )
            for (source, counted), targets in sizes.items()
        )


def _share(sizes: dict[str, int]) -> float:
    return 100 * sizes["encoder"] / sum(sizes.values())


def _needed(sizes: dict[str, int], sparsity: float) -> str:
    try:
        return f"{format_number(100 * equal_zeros(sizes, sparsity), 1)} %"
    except UserError:
        return "more than it has"


def _rows(results: Results, family: Family) -> list[dict]:
    rows, equal = [], set()
    for comparison, measure in ((EQUAL_ENCODER, encoder_sparsity), (EQUAL_ZEROS, whole_sparsity)):
        for reference in family.references:
            close = [nearest(others, reference, measure) for others in family.others.values()]
            members = [group for group in close if group is not None]
            equal |= {(reference.key, group.key) for group in members}
            rows += _block(results, comparison, reference, members)
    for reference in family.references:
        asked = [g for others in family.others.values() for g in others if g.sparsity == reference.sparsity]
        members = [group for group in asked if (reference.key, group.key) not in equal]
        rows += _block(results, SAME_TARGET, reference, members)
    return rows


def _block(results: Results, comparison: str, reference: Group, members: list[Group]) -> list[dict]:
    if not members:
        return []
    rows = [_row(results, comparison, reference)]
    for group in members:
        row = _row(results, comparison, group)
        rows.append(row | dict(zip(DIFFERENCE, change(results, group, reference), strict=True)))
    return rows


def _row(results: Results, comparison: str, group: Group) -> dict:
    key = group.key
    return {
        "task": key.task,
        "metric": metric_of(results, key.task),
        "method": key.method,
        "comparison": comparison,
        "scope": scope_name(recipe_of(group.records[0])),
        "recipe": key.recipe,
        "sparsity_target": group.sparsity,
        "encoder_sparsity": encoder_sparsity(group),
        "whole_model_sparsity": whole_sparsity(group),
        **group.score_columns,
    } | collapsed_runs(results, group)
