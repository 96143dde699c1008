"""A recipe by the guidelines of Kurtic, Hoefler and Alistarh (2023), each value with its reason and where it is from.

Their abstract names what to look after: which components are pruned, schedules that scale with the sparsity, and
distillation. The paper's own values are not known to us. These are oBERT's, and our own.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import yaml

from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_recipe

PUBLISHED, LONG, FEWER_LAYERS = "obert_10_epochs", "obert_30_epochs", "obert_30_epochs_fewer_layers"
OURS, RECALLED = "guidelines", "gmp_star_10_epochs"
METHODS = ("obert", "magnitude")
FINE_TUNING = "finetune"  # the dense recipe where there is no other, and where the dense model is given
SMALL = 6  # layers, up to which oBERT's Table 9 takes the smaller first step
SOURCES = {
    "dense": "the recipe of the dense model, {dense}, with what the experiment changes in it",
    "oBERT": "Kurtic et al. 2022, arXiv 2203.07259, section 4 and Table 9",
    "ours": "this project's own, as in its recipe `guidelines`, which docs/studies measures on a small model",
    "GMP*": "Kurtic, Alistarh 2022, arXiv 2210.06384: UNVERIFIED, recalled and not read; no value is from it alone",
}
WIDTH = 110


@dataclass(frozen=True)
class Value:
    """One value of a recipe.

    Attributes:
        key: with dots, as in `training.batch_size`.
        why: one sentence for the reader of the file.
        source: one of `SOURCES`.
    """

    key: str
    value: Any
    why: str
    source: str


def by_guidelines(dense: Recipe, method: str, layers: int, features: int, cycle_steps: int) -> tuple[Value, ...]:
    """The values of a recipe for one task.

    Args:
        dense: the recipe that fine-tunes the task's dense model.
        method: one of `METHODS`.
        layers: of the model's encoder.
        features: that it is trained on.
        cycle_steps: optimiser steps of dense fine-tuning.
    """
    scaling = _scaling(dense, layers, cycle_steps)
    return (*_scope(), *_training(dense), *_distillation(), *scaling, *_method(method, features))


def _scope() -> list[Value]:
    return [
        Value("start", "pretrained", "fine-tuning is the first cycle", "oBERT"),
        Value("scope.encoder", True, "nearly all multiplications are in its linear layers", "oBERT"),
        Value("scope.embeddings", False, "they are looked up, so that zeros in them save no time", "oBERT"),
        Value("scope.head", False, "it is small, so that zeros in it save next to nothing", "oBERT"),
    ]


def _training(dense: Recipe) -> list[Value]:
    decided = {"epochs", "learning_rate"}
    kept = {"batch_size": dense.training.batch_size} | dense.training.model_dump(
        mode="json", exclude_defaults=True, exclude=decided
    )
    values = [Value(f"training.{name}", value, "as in dense fine-tuning", "dense") for name, value in kept.items()]
    rate, long = dense.training.learning_rate, load_recipe(LONG).training.learning_rate
    values.append(Value("training.learning_rate.initial", rate.initial, "each cycle starts at the dense peak", "dense"))
    share = long.final / long.initial
    why = f"each cycle ends at {share:g} of its peak, not at 0: pruning needs a rate to recover with"
    values.append(Value("training.learning_rate.final", float(f"{share * rate.initial:.6g}"), why, "oBERT"))
    if rate.warmup_epochs:
        values.append(
            Value("training.learning_rate.warmup_epochs", rate.warmup_epochs, "of each cycle, as dense", "dense")
        )
    return values


def _distillation() -> list[Value]:
    published = load_recipe(PUBLISHED).distillation
    recalled = load_recipe(RECALLED).distillation
    return [
        Value(
            "distillation.hardness", published.hardness, "the share of the teacher; 1 leaves the labels out", "oBERT"
        ),
        Value(
            "distillation.temperature",
            published.temperature,
            f"softens the teacher. GMP* is recalled to take {recalled.temperature:g} (UNVERIFIED): worth a try where "
            "the teacher is very sure of all it says",
            "oBERT",
        ),
    ]


def _scaling(dense: Recipe, layers: int, cycle_steps: int) -> list[Value]:
    rule = load_recipe(OURS).scaling
    first = load_recipe(FEWER_LAYERS if layers <= SMALL else PUBLISHED).schedule.initial_sparsity
    ((name, number),) = rule.cycles.model_dump().items()
    unit = dense.training.epochs
    return [
        Value("scaling.unit_epochs", unit, "a cycle is dense fine-tuning once", "dense"),
        Value(
            f"scaling.cycles.{name}",
            number,
            f"cycles: {_counts(rule)}",
            "ours",
        ),
        Value("scaling.dense_cycles", rule.dense_cycles, "two of ten epochs, as long as fine-tuning", "oBERT"),
        Value("scaling.recovery_cycles", rule.recovery_cycles, "two of ten epochs, as long as fine-tuning", "oBERT"),
        Value(
            "scaling.initial_sparsity",
            first,
            f"the first step is large, which leaves time for the last ones; {'3 and 6' if layers <= SMALL else '12'} "
            "layers",
            "oBERT",
        ),
        Value("scaling.initial_share", rule.initial_share, "and no more than this share of the target", "ours"),
        Value(
            "scaling.events_per_cycle",
            min(rule.events_per_cycle, float(cycle_steps)),
            "pruning twice an epoch, where fine-tuning has two. GMP* is recalled to prune "
            f"{1 / load_recipe(RECALLED).schedule.every_epochs:g} times an epoch (UNVERIFIED)",
            "oBERT",
        ),
        Value("scaling.shape", rule.shape, "ever smaller steps, as networks get harder to prune", "oBERT"),
        Value(
            "scaling.learning_rate",
            rule.learning_rate,
            "the rate starts anew with each cycle. So does GMP*'s, as recalled (UNVERIFIED); oBERT's every four epochs",
            "ours",
        ),
    ]


def _counts(rule: Any) -> str:
    return ", ".join(f"{rule.cycles_at(s)} at {100 * s:g} %" for s in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97))


def _method(method: str, features: int) -> list[Value]:
    if method != "obert":
        return [Value(f"methods.{method}", {}, "magnitudes need no settings", "ours")]
    published, ours = load_recipe(PUBLISHED).methods["obert"], load_recipe(OURS).methods["obert"]
    count = min(published["num_gradients"], features)
    fewer = "" if count == published["num_gradients"] else f", not {published['num_gradients']}: that is all there are"
    return [
        Value("methods.obert.num_gradients", count, f"gradients of an event{fewer}", "oBERT"),
        Value("methods.obert.fisher_block_size", published["fisher_block_size"], "weights of a block", "oBERT"),
        Value("methods.obert.gradients", ours["gradients"], "one of each example, as the formula has it", "ours"),
        Value("methods.obert.gradient_batch_size", ours["gradient_batch_size"], "examples of a pass", "ours"),
    ]


def as_yaml(values: tuple[Value, ...], description: str, dense: str, header: str = "") -> str:
    """The recipe's file: what the sources are, then each value below a comment that says why, and from where.

    Args:
        dense: name of the dense model's recipe.
        header: what stands above all, as comments.
    """
    lines = [*_comment(header), "#"] if header else []
    named = [f"[{name}] {text.format(dense=dense)}" for name, text in SOURCES.items()]
    lines += ["# Sources, in brackets below:", *(line for text in named for line in _comment(text, hang="  "))]
    lines += [*_yaml("description", description), *_yaml("source", "see the comments"), *_yaml("stage", "downstream")]
    open_groups: list[str] = []
    for value in values:
        *groups, name = value.key.split(".")
        shared = _shared(groups, open_groups)
        lines += [f"{'  ' * depth}{group}:" for depth, group in enumerate(groups) if depth >= shared]
        open_groups, indent = groups, "  " * len(groups)
        lines += _comment(f"[{value.source}] {value.why}", indent)
        lines += _yaml(name, value.value, indent)
    return "\n".join(lines) + "\n"


def _yaml(name: str, value: Any, indent: str = "") -> list[str]:
    return textwrap.indent(yaml.safe_dump({name: value}, width=WIDTH), indent).splitlines()


def _shared(groups: list[str], others: list[str]) -> int:
    count = 0
    while count < min(len(groups), len(others)) and groups[count] == others[count]:
        count += 1
    return count


def _comment(text: str, indent: str = "", hang: str = "") -> list[str]:
    start = f"{indent}# "
    return textwrap.fill(text, WIDTH, initial_indent=start, subsequent_indent=start + hang).split("\n")
