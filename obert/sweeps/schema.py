"""The schema of a sweep (`configs/sweeps/<name>.yaml`)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, SerializeAsAny, field_validator, model_validator

from obert.experiment.strict import Name, Strict
from obert.stages import stages

NOT_SEARCHED = {"description", "source", "stage", "family"}  # what a recipe is, not how it does it
MOST = 10_000  # points of a grid: each is made a plan of before the first is run
Value = bool | int | float | str | None


class Parameter(Strict):
    """What is tried for one key of a recipe: `values`, or the numbers from `low` to `high`."""

    values: tuple[Value, ...] = Field((), description="what is tried")
    low: int | float | None = Field(None, description="the smallest number that is tried")
    high: int | float | None = Field(None, description="the largest number that is tried")
    step: int | float | None = Field(None, gt=0, description="between the numbers; any number by default")
    log: bool = Field(False, description="sampler tpe: searched by the logarithm")
    unless: dict[str, Value] = Field(
        default_factory=dict,
        exclude_if=lambda values: not values,  # sweeps without it keep their trials
        description="values of keys before this one at which it means nothing and stays the recipe's own, as in "
        "{distillation.hardness: 0}",
    )

    @field_validator("values")
    @classmethod
    def _distinct_numbers(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        for value in values:
            if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+e[-+]?[0-9]+", value, re.IGNORECASE):
                raise ValueError(f"YAML reads {value} as text: write it with a point and a sign, as in 1.0e-4")
        if len(set(map(repr, values))) < len(values):
            raise ValueError("a value appears twice")
        return values

    @model_validator(mode="after")
    def _one_kind(self):
        has_ends = self.low is not None and self.high is not None
        if bool(self.values) == has_ends or (self.low is None) != (self.high is None):
            raise ValueError("give 'values', or 'low' and 'high'")
        if self.values and (self.step is not None or self.log):
            raise ValueError("'step' and 'log' go with 'low' and 'high'")
        if has_ends and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("'log' needs 'low' above 0 and takes no 'step'")
        if self.step is not None and (self.high - self.low) / self.step > MOST:
            raise ValueError(f"'step' makes more than {MOST:,} points: raise it, or leave it out with sampler tpe")
        return self

    def is_tried(self, others: Mapping[str, Value]) -> bool:
        """Whether the key means anything beside other keys' values."""
        return not any(others.get(key) == value for key, value in self.unless.items())

    @property
    def is_integer(self) -> bool:
        """Whether a range is of whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step) if number is not None)

    @property
    def points(self) -> tuple[Value, ...]:
        """The values, or the numbers of a range with a step; none of a range without."""
        if self.step is None:
            return self.values
        return tuple(self.low + i * self.step for i in range(int((self.high - self.low) / self.step + 1e-9) + 1))

    @property
    def ends(self) -> tuple[Value, Value]:
        """The first and the last of the values, or of the range."""
        return (self.values[0], self.values[-1]) if self.values else (self.low, self.high)


class Sweep(Strict):
    """The content of `configs/sweeps/<name>.yaml`.

    What is run is one block of a stage as in an experiment (`downstream`, `transfer`, `quantize`), with one recipe. A
    trial is judged by the mean of its runs' primary metrics on held-out training data; the highest is the best.
    """

    name: Name = Field(description="names the folder of its results")
    description: str = Field(description="what it searches, and why")
    experiment: str = Field(description="file of the experiment that gives model, tasks and teacher")
    stage: Name = Field(description="the stage that is run; its block stands under the stage's name")
    block: SerializeAsAny[BaseModel] = Field(description="what is run, as in an experiment")
    space: dict[str, Parameter] = Field(
        min_length=1,
        description="by key of the recipe, as in methods.obert.dampening; a grid's last varies fastest",
    )
    sampler: Literal["grid", "tpe"] = Field(
        "grid", description="every point of the grid, or the tree-structured Parzen estimator of Optuna"
    )
    trials: int | None = Field(None, gt=0, description="sampler tpe: how many; a grid has each point once")
    seed: int = Field(100, ge=0, description="of the sampler, and of the runs where the block names no seeds")
    held_out: float = Field(0.2, gt=0, lt=1, description="fraction of each task's training examples")
    stop_early: bool = Field(
        False, description="end a trial whose score is below the others' median; the highest sparsity comes first"
    )
    storage: str | None = Field(
        None, description="URL of a database, as in postgresql+psycopg://host/name; a journal file by default"
    )
    recipe: Name = Field(description="name of the recipe that it ends in")

    @model_validator(mode="before")
    @classmethod
    def _block_of_a_stage(cls, content: Any) -> Any:
        """Takes the block from the key that is the name of its stage."""
        with_blocks = {known.name: known for known in stages() if known.block is not None}
        given = [name for name in with_blocks if name in content]
        if set(content) - set(given) - set(cls.model_fields):
            return content  # the unknown keys are what is told
        if len(given) != 1:
            raise ValueError(f"give one block of what is run: {', '.join(map(repr, with_blocks))}")
        rest = {name: value for name, value in content.items() if name not in given}
        block = with_blocks[given[0]].block.model_validate(content[given[0]])
        return {**rest, "stage": given[0], "block": block}

    @model_validator(mode="after")
    def _consistent(self):
        if not hasattr(self.block, "recipe") and not hasattr(self.block, "recipes"):
            raise ValueError(f"{self.stage}: its blocks name no recipe, so there are no keys to search")
        if len(getattr(self.block, "recipes", ("one",))) != 1:
            raise ValueError(f"{self.stage}.recipes: a sweep searches the keys of one recipe")
        if self.sampler == "tpe" and self.trials is None:
            raise ValueError("sampler tpe needs the number of 'trials'")
        if self.sampler == "grid":
            if self.trials is not None:
                raise ValueError("a grid has each point once: leave 'trials' out, or set sampler: tpe")
            if endless := [key for key, parameter in self.space.items() if not parameter.points]:
                raise ValueError(f"space.{endless[0]}: a grid needs 'values', or 'low', 'high' and 'step'")
            if (points := math.prod(len(parameter.points) for parameter in self.space.values())) > MOST:
                raise ValueError(f"space: {points:,} points are more than the {MOST:,} of a grid; use sampler: tpe")
        return self

    @model_validator(mode="after")
    def _unless_of_keys_before(self):
        before: dict[str, Parameter] = {}
        for key, parameter in self.space.items():
            for other, value in parameter.unless.items():
                if other not in before:
                    raise ValueError(f"space.{key}.unless: '{other}' is no key before this one")
                if before[other].values and value not in before[other].values:
                    raise ValueError(f"space.{key}.unless: {value!r} is no value of '{other}'")
            before[key] = parameter
        return self

    @property
    def base(self) -> str:
        """The recipe whose keys are searched."""
        return self.block.recipes[0] if hasattr(self.block, "recipes") else self.block.recipe
