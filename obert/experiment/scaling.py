"""Schedules that scale with the target sparsity, as plain numbers.

That training, pruning and the learning rate should scale with the sparsity is the second guideline of Kurtic, Hoefler
and Alistarh (2023, arXiv 2312.13547), as its abstract has it. How the paper scales them is not known to us: these rules
are ours, and have GMP* (Kurtic and Alistarh 2022), oBERT's recipes and SMC-Bench's as special cases.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from obert.experiment.strict import Fraction, Sparsity, Strict

SLACK = 0.02  # of a cycle: sparsities are written with few digits, and 79.1 % is meant as 1 - 0.8^7
DIGITS = 6  # of epochs
DECIDED = ("schedule", "training.epochs", "training.learning_rate.rewind_epochs")  # keys of a recipe
MOST = 1000  # cycles: more are a slip, such as percent for a fraction


def _only(**constraints: Any) -> Any:
    """A field that is there if it is given."""
    return Field(None, exclude_if=lambda value: value is None, **constraints)


class Cycles(Strict):
    """How many times the dense schedule fits into a run, by its target sparsity s. One of the four."""

    constant: int | None = _only(gt=0, le=MOST, description="as many for every sparsity")
    linear: float | None = _only(ge=0, description="a: 1 + a s, rounded up")
    density: float | None = _only(
        gt=0,
        lt=1,
        description="r: one, and one for each time that a share r of the weights left is pruned: "
        "1 + ln(1 - s) / ln(1 - r), rounded up",
    )
    table: dict[Sparsity, Annotated[int, Field(gt=0, le=MOST)]] | None = _only(
        min_length=1, description="by sparsity; between two entries, the number of the higher sparsity"
    )

    @model_validator(mode="after")
    def _one_rule(self):
        if len(self.model_dump()) != 1:
            raise ValueError("give one of constant, linear, density and table")
        return self

    @field_validator("table", mode="wrap")
    @classmethod
    def _each_once(cls, table: Any, validated: Callable[[Any], dict[float, int] | None]) -> dict[float, int] | None:
        found = validated(table)
        if found is not None and len(found) < len(table):
            raise ValueError("a sparsity appears twice, written in two ways")
        return found

    @field_validator("table")
    @classmethod
    def _does_not_fall(cls, table: dict[float, int] | None) -> dict[float, int] | None:
        if table is not None and (counts := [table[s] for s in sorted(table)]) != sorted(counts):
            raise ValueError("a higher sparsity must not have fewer cycles")
        return table

    def at(self, sparsity: float) -> int:
        """The number for a target sparsity. Raises ValueError where a table has none, or a rule too many."""
        if self.constant is not None:
            return self.constant
        if self.table is not None:
            listed = [s for s in sorted(self.table) if s >= sparsity]
            if not listed:
                raise ValueError(f"scaling.cycles.table ends at {max(self.table):g}: add an entry for {sparsity:g}")
            return self.table[listed[0]]
        further = (
            self.linear * sparsity if self.linear is not None else math.log1p(-sparsity) / math.log1p(-self.density)
        )
        if further > MOST:
            ((rule, value),) = self.model_dump().items()
            raise ValueError(
                f"scaling.cycles.{rule} {value:g} gives {further:.6g} cycles at sparsity {sparsity:g}: at most {MOST} "
                f"are run. {'Raise' if rule == 'density' else 'Lower'} it"
            )
        return 1 + max(math.ceil(further - SLACK), 0)


class EqualCompute(Strict):
    """A control: every sparsity is given the same number of cycles, so that none is ahead by training longer."""

    length: Literal["longest", "mean"] = Field(description="of the numbers of cycles; a mean is rounded")
    of: tuple[Sparsity, ...] = Field(min_length=1, description="the sparsities whose cycles they are")


class Scaling(Strict):
    """A dense schedule that is repeated, and pruning in the midst of the repetitions.

    The recipe's `training` is one cycle's: its learning rate, warm-up included, is that of dense fine-tuning. See
    docs/explanation/pruning_guidelines.md.
    """

    unit_epochs: float = Field(gt=0, description="length of a cycle: of dense fine-tuning")
    cycles: Cycles = Field(description="how many cycles training has, by the target sparsity")
    equal_compute: EqualCompute | None = _only(description="in place of each sparsity's own number of cycles")
    dense_cycles: float = Field(1.0, ge=0, description="before the first pruning event")
    recovery_cycles: float = Field(1.0, gt=0, description="after the last pruning event")
    initial_sparsity: Fraction = Field(0.7, description="the most that the first event prunes")
    initial_share: float = Field(1.0, ge=0, le=1, description="the most that it prunes, as a share of the target")
    events_per_cycle: float = Field(10.0, gt=0, description="pruning events in a cycle")
    shape: Literal["cubic", "linear", "geometric"] = Field("cubic", description="as in `schedule`")
    learning_rate: Literal["cycle", "event", "recovery", "once"] = Field(
        "cycle",
        description="where it starts anew: with every cycle, with every pruning event, with recovery, or nowhere",
    )

    def cycles_at(self, sparsity: float) -> int:
        """How many cycles a run to a target sparsity has. Raises ValueError where a table has no number."""
        if self.equal_compute is None:
            return self.cycles.at(sparsity)
        counts = [self.cycles.at(other) for other in self.equal_compute.of]
        return max(counts) if self.equal_compute.length == "longest" else round(sum(counts) / len(counts))

    def plain(self, sparsity: float) -> dict[str, Any]:
        """What `training` and `schedule` of a recipe say for a target sparsity.

        Raises:
            ValueError: there is no room for pruning between the dense cycles and those of recovery, there are too many
                cycles, or too many events in one.
        """
        cycles = self.cycles_at(sparsity)
        epochs = self.unit_epochs * cycles
        start, end = self.unit_epochs * self.dense_cycles, self.unit_epochs * (cycles - self.recovery_cycles)
        if end < start:
            raise ValueError(
                f"scaling: {cycles} cycles at sparsity {sparsity:g} leave no room for {self.dense_cycles:g} "
                f"dense cycles and {self.recovery_cycles:g} of recovery. Lower these, or raise cycles"
            )
        every = self.unit_epochs / self.events_per_cycle
        if every < 10**-DIGITS:
            raise ValueError(
                f"scaling: {self.events_per_cycle:g} events in a cycle of {self.unit_epochs:g} epochs are one each "
                f"{every:g} epochs, less than any step. Lower events_per_cycle"
            )
        schedule = {
            "start_epoch": start,
            "end_epoch": end,
            "every_epochs": every,
            "initial_sparsity": min(self.initial_sparsity, self.initial_share * sparsity),
        }
        schedule = {name: round(value, DIGITS) for name, value in schedule.items()}
        schedule["initial_sparsity"] = min(schedule["initial_sparsity"], sparsity)
        rewinds = {
            "cycle": [k * self.unit_epochs for k in range(1, cycles)],
            "event": evenly(start, end, every),
            "recovery": [end],
            "once": [],
        }[self.learning_rate]
        inside = [round(epoch, DIGITS) for epoch in rewinds if 0 < round(epoch, DIGITS) < round(epochs, DIGITS)]
        return {
            "training": {"epochs": round(epochs, DIGITS), "learning_rate": {"rewind_epochs": inside}},
            "schedule": {**schedule, "shape": self.shape},
        }


def evenly(start: float, end: float, every: float) -> list[float]:
    """From `start` to `end` inclusive; the last interval may be shorter."""
    count = int((end - start) / every + 1e-6)
    epochs = [start + i * every for i in range(count + 1)]
    return epochs if epochs[-1] >= end - 1e-6 * every else [*epochs, end]


def check_unscaled(content: dict[str, Any]) -> None:
    """Raise ValueError if a recipe's file gives by itself what its `scaling` decides."""
    if named := [name for name in DECIDED if _given(content, name) is not None]:
        raise ValueError(
            f"'scaling' decides {' and '.join(named)}: leave out one of the two. What is there by "
            "'extends' is left out with null, as in 'schedule: null'"
        )


def _given(content: Any, name: str) -> Any:
    """The value of a key with dots, None where a mapping on the way to it is none."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
