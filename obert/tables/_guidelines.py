"""Which guidelines of "How to Prune Your Language Model" a run follows, read from its specification, and its place.

The guidelines are those of its abstract: the encoder alone is pruned (`scope`), schedules scale with the sparsity
(`schedule`), and the dense model teaches (`distillation`). oBERT in the place of magnitude is the ladder's last step.
"""

from dataclasses import dataclass

from obert.records.record import Record
from obert.tables import Note, Results
from obert.tables._measured import Group, groups, recipe_of
from obert.tables._scopes import mean_of, scope_values, whole_sparsity

PAPER, BENCHMARK = "how_to_prune", "smc_bench"
GUIDELINES = ("scope", "schedule", "distillation")
METHODS = ("magnitude", "obert")
SMC = "as in SMC-Bench"
STEPS = (SMC, "+ scope", "+ schedule", "+ distillation", "+ oBERT")


@dataclass(frozen=True)
class Place:
    """Where a run stands between SMC-Bench's setting and all guidelines.

    Attributes:
        followed: which guidelines, in their order.
        control: the length of an equal-compute control, None for any other run.
    """

    followed: tuple[str, ...]
    method: str
    control: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether all guidelines are followed."""
        return self.followed == GUIDELINES and self.control is None

    @property
    def step(self) -> int | None:
        """The step of the ladder, None beside it."""
        count = len(self.followed)
        if self.control is not None or self.followed != GUIDELINES[:count]:
            return None
        return count if self.method == METHODS[0] else count + 1 if self.is_full else None

    @property
    def left_out(self) -> str | None:
        """The one guideline that is not followed, None where that are none or several."""
        absent = [name for name in GUIDELINES if name not in self.followed]
        return absent[0] if len(absent) == 1 and self.control is None else None

    @property
    def label(self) -> str:
        """E.g. "+ scope", "all but scope", "only distillation", "all, at equal compute (longest)"."""
        if self.control is not None:
            followed = "all" if self.followed == GUIDELINES else ", ".join(self.followed)
            return f"{followed}, at equal compute ({self.control})"
        but = f"all but {self.left_out}" if self.left_out else ""
        if self.step is not None:
            return f"{STEPS[self.step]} ({but})" if but else STEPS[self.step]
        return but or (f"only {', '.join(self.followed)}" if self.followed else SMC)


def place_of(record: Record) -> Place | None:
    """The place of a gradually pruned run, None for any other, such as one with a scope of the scopes' own table."""
    recipe, method = recipe_of(record), record.key.method
    schedule = recipe.get("schedule") or {}
    at_once = "end_epoch" in schedule and schedule["end_epoch"] <= schedule.get("start_epoch", 0)
    scaling = recipe.get("scaling") or {}
    scales = bool(scaling) and scaling.get("cycles", {}).get("constant") is None
    # A schedule that scales may have room for one event alone at a low sparsity.
    if method not in METHODS or not recipe.get("training") or (at_once and not scales):
        return None
    alone, at_one_cut = prunes_encoder_alone(record), all(part is True for part in scope_values(recipe).values())
    if not (alone or at_one_cut):
        return None
    control = (scaling.get("equal_compute") or {}).get("length")
    follows = {
        "scope": alone,
        "schedule": scales,
        "distillation": recipe.get("distillation") is not None,
    }
    return Place(tuple(name for name in GUIDELINES if follows[name]), method, control)


def prunes_encoder_alone(record: Record) -> bool:
    """Whether neither embeddings nor head are in scope."""
    scope = scope_values(recipe_of(record))
    return not (scope["embeddings"] or scope["head"])


def is_smc_setting(record: Record) -> bool:
    """Whether a run prunes embeddings and head too, without distillation, as SMC-Bench's methods do."""
    recipe = recipe_of(record)
    scope = scope_values(recipe)
    return bool(scope["embeddings"] and scope["head"]) and recipe.get("distillation") is None


def compared_groups(results: Results, task: str) -> dict[str, list[Group]]:
    """A task's runs in SMC-Bench's setting, with any method, and by all guidelines, by label."""
    found: dict[str, list[Group]] = {}
    for group in groups(results, task, "downstream"):
        place, first = place_of(group.records[0]), group.records[0]
        if place is not None and place.is_full:
            found.setdefault(f"all guidelines, {group.key.recipe}: {group.method}", []).append(group)
        elif group.sparsity and is_smc_setting(first):
            found.setdefault(f"{SMC}, {group.key.recipe}: {group.method}", []).append(group)
    return found


def sparsities(group: Group) -> dict[str, float]:
    """SPARSITIES of a group, means over seeds; NaN where they were not counted."""
    encoder = mean_of(group, lambda s: s.measured if s.encoder is None else s.encoder)  # older runs prune it alone
    return {"encoder_sparsity": encoder, "whole_model_sparsity": whole_sparsity(group)}


def claim_notes(results: Results) -> tuple[Note, ...]:
    """What the paper's abstract says, and why it has no column."""
    paper = results.published.papers[PAPER]
    said = "; ".join(paper.claims)
    return (Note(f"{paper.title} ({paper.reference}): the abstract says: {said}. It has no cells: {paper.unread}."),)
