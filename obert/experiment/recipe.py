"""The schema of a recipe (`configs/recipes/<name>.yaml`): how a model is trained or pruned."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from obert.experiment.reading import merge
from obert.experiment.scaling import Scaling
from obert.experiment.strict import Fraction, Name, Rate, Strict
from obert.masks.patterns import Distribution, parse_pattern

ANY_LENGTH = 1e9  # epochs: more than anyone trains for


class LearningRate(Strict):
    """Linear decay from `initial` to `final`, restarted at each of `rewind_epochs`.

    See docs/explanation/training.md#learning-rate-and-rewinds.
    """

    initial: float = Field(gt=0, description="the highest rate")
    final: Rate | tuple[Rate, ...] = Field(0.0, description="at the end of each cycle, or a list, one for each")
    rewind_epochs: tuple[float, ...] = Field((), description="epochs at which a new cycle starts from `initial`")
    warmup_epochs: float = Field(0.0, ge=0, description="linear from 0, at the start of each cycle")
    constant_until_epoch: float = Field(0.0, ge=0, description="held at `initial` until here, then decays")

    @model_validator(mode="after")
    def _one_cycle(self):
        if self.rewind_epochs and self.constant_until_epoch:
            raise ValueError(
                "rewind_epochs does not go with constant_until_epoch: leave out one (scaling.learning_rate: once)"
            )
        return self

    @model_validator(mode="after")
    def _a_final_rate_for_each_cycle(self):
        cycles = len(self.rewind_epochs) + 1
        if isinstance(self.final, tuple) and len(self.final) != cycles:
            raise ValueError(f"final has {len(self.final)} rates for {cycles} cycles: give each one, or one for all")
        return self

    def final_of(self, cycle: int) -> float:
        """The rate at the end of a cycle, counted from 0."""
        return self.final[cycle] if isinstance(self.final, tuple) else self.final


class Training(Strict):
    """One run of the Hugging Face Trainer with AdamW."""

    epochs: float = Field(gt=0, le=ANY_LENGTH, description="passes over the training features; a fraction is possible")
    batch_size: int = Field(32, gt=0, description="features of a minibatch")
    gradient_accumulation: int = Field(1, gt=0, description="minibatches of an optimiser step")
    learning_rate: LearningRate = Field(description="schedule of the learning rate")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    adam_beta2: float = Field(
        0.999, ge=0, lt=1, exclude_if=lambda beta: beta == 0.999, description="AdamW's smoothing of squared gradients"
    )
    adam_epsilon: float = Field(
        1e-8, gt=0, exclude_if=lambda epsilon: epsilon == 1e-8, description="AdamW's, added to the root of these"
    )
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    freeze_embeddings: bool = Field(False, description="embeddings are not trained")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass in training")
    checkpoint_minutes: float = Field(5.0, gt=0, description="between checkpoints: what a crash costs at most")
    checkpoint_steps: int | None = Field(None, gt=0, description="optimiser steps between further checkpoints")

    @model_validator(mode="after")
    def _rewinds_inside_training(self):
        rate = self.learning_rate
        if max(rate.warmup_epochs, rate.constant_until_epoch) >= self.epochs:
            raise ValueError(
                f"learning_rate: warmup_epochs {rate.warmup_epochs:g} and constant_until_epoch "
                f"{rate.constant_until_epoch:g} must end before training does ({self.epochs:g} epochs)"
            )
        rewinds = rate.rewind_epochs
        if list(rewinds) != sorted(set(rewinds)) or any(not 0 < r < self.epochs for r in rewinds):
            raise ValueError(
                f"learning_rate.rewind_epochs {list(rewinds)} must increase and lie inside (0, {self.epochs:g})"
            )
        ends = [*rewinds, self.epochs]
        shortest = min(end - start for start, end in zip([0, *rewinds], ends, strict=True))
        if rewinds and rate.warmup_epochs >= shortest:
            raise ValueError(
                f"learning_rate.warmup_epochs {rate.warmup_epochs:g} must end before a cycle does ({shortest:g} epochs)"
            )
        return self


class Distillation(Strict):
    """Knowledge distillation from the task's dense teacher (Hinton et al. 2015).

    See docs/explanation/training.md#distillation.
    """

    hardness: float = Field(
        1.0, ge=0, le=1, description="share of the distillation loss; the rest is the task's own loss"
    )
    temperature: float = Field(2.0, gt=0, description="by which the logits of both models are divided")


OWN = "own"
PartOfScope = bool | Literal["own"] | Annotated[float, Field(gt=0, lt=1)]


class Scope(Strict):
    """Which weights are pruned, and count for sparsity. Biases and LayerNorm never are.

    Parts that are `true` share one cut at the run's sparsity. A part that is `own` has a cut of its own at that
    sparsity; one with a number has a cut of its own, and the number is its sparsity at the end.
    See docs/explanation/methods.md#what-sparsity-counts.
    """

    encoder: PartOfScope = Field(True, description="linear layers of the encoder's layers")
    embeddings: PartOfScope = Field(
        False, description="tables of tokens, positions and token types, and the projection of factorised embeddings"
    )
    head: PartOfScope = Field(
        False, description="linear layers of the pooler and the task; a tied output is an embedding"
    )

    @field_validator("encoder", "embeddings", "head", mode="before")
    @classmethod
    def _allowed(cls, value: Any) -> Any:
        is_target = isinstance(value, int | float) and not isinstance(value, bool)
        if is_target and 0 < value < 1:
            return float(value)
        if isinstance(value, bool) or value == OWN:
            return value
        hint = " (0 prunes nothing: write false)" if is_target and value == 0 else ""
        raise ValueError(
            f"found {value!r}{hint}; allowed are false, true (in the one cut at the run's sparsity), own (a cut of its "
            "own at that sparsity), and a number above 0 and below 1 (a cut of its own, and the sparsity at its end)"
        )

    @model_validator(mode="after")
    def _some(self):
        if not self.parts:
            raise ValueError("nothing would be pruned: set encoder, embeddings or head")
        if len(self.targets) == len(self.parts):
            raise ValueError("no part is pruned to the run's sparsity: make one of them true or own")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are in scope."""
        return tuple(part for part in ("encoder", "embeddings", "head") if getattr(self, part))

    @property
    def targets(self) -> dict[str, float]:
        """Of the parts with a sparsity of their own, what it is at the end."""
        return {part: value for part in self.parts if isinstance(value := getattr(self, part), float)}

    @property
    def cuts(self) -> tuple[tuple[str, ...], ...]:
        """The parts in scope, those together that share a cut."""
        shared = tuple(part for part in self.parts if getattr(self, part) is True)
        own = tuple((part,) for part in self.parts if part not in shared)
        return (shared, *own) if shared else own


class SparsitySchedule(Strict):
    """From `initial_sparsity` at `start_epoch` to the target at `end_epoch`, every `every_epochs` or `every_steps`."""

    start_epoch: float = Field(0.0, ge=0, description="of the first pruning event")
    end_epoch: float = Field(ge=0, description="of the event that reaches the target")
    every_epochs: float | None = Field(None, gt=0, description="1 by default")
    every_steps: int | None = Field(None, gt=0, description="optimiser steps, in place of every_epochs")
    initial_sparsity: Fraction = Field(0.7, description="after the first event")
    shape: Literal["cubic", "linear", "geometric"] = Field(
        "cubic",
        description="of the way from the first event to the last (cubic: Zhu and Gupta 2018; geometric: an equal share "
        "of the weights left each time)",
    )
    rerank_until_epoch: float | None = Field(
        None,
        ge=0,
        description="masks are made anew at the target until here, by methods whose pruned weights may return",
    )

    @model_validator(mode="after")
    def _window(self):
        if self.end_epoch < self.start_epoch:
            raise ValueError(f"end_epoch {self.end_epoch:g} is before start_epoch {self.start_epoch:g}")
        if self.every_steps is not None and self.every_epochs is not None:
            raise ValueError("give every_epochs or every_steps, not both")
        if self.rerank_until_epoch is not None and self.rerank_until_epoch <= self.end_epoch:
            raise ValueError(
                f"rerank_until_epoch {self.rerank_until_epoch:g} must be after end_epoch {self.end_epoch:g}"
            )
        return self


class Interval(Strict):
    """Between the pruning events of one method, in place of the schedule's."""

    every_epochs: float | None = Field(None, gt=0)
    every_steps: int | None = Field(None, gt=0, description="optimiser steps, in place of every_epochs")

    @model_validator(mode="after")
    def _one(self):
        if (self.every_steps is None) == (self.every_epochs is None):
            raise ValueError("give every_epochs or every_steps, one of them")
        return self


class Recipe(Strict):
    """How a model is trained or pruned. One file, one row of a table (times methods and sparsities)."""

    description: str = Field(description="what the recipe does, for the reader")
    source: str = Field("", description="paper, table, or file that the hyper-parameters are from")
    stage: Name = Field(description="the stage that runs it; each checks its own recipes further")
    family: Literal["as published", "equal terms"] = Field(
        "equal terms",
        description="follows one paper, or runs every method with the same start, schedule, data and budget",
    )
    start: Literal["pretrained", "teacher", "upstream"] = Field(
        "pretrained", description="downstream only: the pre-trained, the fine-tuned, or an upstream model"
    )
    layers: tuple[int, ...] | None = Field(
        None, description="of what is pruned or cut: encoder layers to keep, in order; all by default"
    )
    training: Training | None = Field(None, description="none for pruning in one shot, and for a teacher that is given")
    schedule: SparsitySchedule | None = Field(None, description="of gradual pruning; none for pruning in one shot")
    intervals: dict[Name, Interval] = Field(
        default_factory=dict,
        exclude_if=lambda intervals: not intervals,
        description="by method: of its own between pruning events, for methods that need another than the schedule's",
    )
    scaling: Scaling | None = Field(
        None,
        exclude_if=lambda scaling: scaling is None,
        description="makes `schedule`, `training.epochs` and the rewinds from each run's target sparsity",
    )
    pattern: str | dict[str, str] = Field(
        "unstructured",
        description="which weights go together: unstructured, 1x4, 2:4, 32x32, row, column; or by the weight's name",
    )
    scope: Scope = Field(
        Scope(),
        exclude_if=lambda scope: scope == Scope(),  # runs without it keep the specification they have always had
        description="which weights are pruned; those of the encoder's layers by default",
    )
    distribution: Distribution = Field(
        "global",
        description="what weights are compared with: all layers, those of their own (uniform), those of their row; "
        "a method that is defined by one of them keeps to it",
    )
    distillation: Distillation | None = Field(None, description="from the task's dense teacher; none by default")
    freeze_observers_epoch: float | None = Field(
        None, gt=0, description="quantize only: the scales follow the data until here"
    )
    methods: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="parameters by method; as published: the one method it is for"
    )

    @model_validator(mode="before")
    @classmethod
    def _a_cycle_is_the_unit(cls, content: Any) -> Any:
        """Until a run's sparsity is known, training is one cycle long; of any length where `scaling` is a mistake."""
        if not isinstance(content, dict) or content.get("scaling") is None:
            return content
        scaling, training = content["scaling"], content.get("training")
        unit = scaling.get("unit_epochs") if isinstance(scaling, dict) else getattr(scaling, "unit_epochs", None)
        is_length = isinstance(unit, int | float) and 0 < unit < math.inf
        if not isinstance(training, dict):
            return content
        training = {name: value for name, value in training.items() if value is not None}
        if isinstance(rate := training.get("learning_rate"), dict):
            training["learning_rate"] = {name: value for name, value in rate.items() if value is not None}
        return {**content, "training": {"epochs": unit if is_length else ANY_LENGTH, **training}}

    @model_validator(mode="after")
    def _consistent(self):
        if self.scaling is not None and self.training is None:
            raise ValueError("'scaling' repeats a dense schedule, whose learning rate 'training' has to give")
        if self.training is None and self.distillation is not None:
            raise ValueError("one-shot pruning does not train: leave 'distillation' out")
        if self.scope.embeddings and self.training is not None and self.training.freeze_embeddings:
            raise ValueError("scope.embeddings prunes what training.freeze_embeddings keeps as it is: set one of them")
        if self.schedule is not None and self.training is None:
            raise ValueError("a gradual recipe ('schedule') needs 'training'; leave both out for one-shot pruning")
        if self.intervals and self.schedule is None:
            raise ValueError("'intervals' are of a schedule's pruning events: give 'schedule', or leave them out")
        if self.schedule and self.schedule.end_epoch >= self.training.epochs:
            raise ValueError(
                f"schedule.end_epoch {self.schedule.end_epoch:g} must be before training.epochs "
                f"{self.training.epochs:g}, or the last pruning step is never recovered from"
            )
        if self.schedule and (self.schedule.rerank_until_epoch or 0) > self.training.epochs:
            raise ValueError(
                f"schedule.rerank_until_epoch {self.schedule.rerank_until_epoch:g} is after training.epochs "
                f"{self.training.epochs:g}"
            )
        largest = parse_pattern(self.pattern).largest_sparsity
        for part, target in self.scope.targets.items():
            if target > largest:
                raise ValueError(f"scope.{part} {target:g} is more than pattern {self.pattern} allows ({largest:g})")
        if self.family == "as published" and len(self.methods) > 1:
            raise ValueError("a recipe as published is for one method")
        return self

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        parse_pattern(value)
        return value

    def at(self, sparsity: float, method: str | None = None) -> Self:
        """The recipe of a run: what `scaling` decides for its target, and `intervals` for its method, is there in plain
        numbers.

        Raises:
            ValueError: the numbers cannot be.
        """
        if self.scaling is not None:
            return type(self).model_validate(merge(self.model_dump(), self.scaling.plain(sparsity)))
        if not self.intervals:
            return self
        own = self.intervals.get(method)
        schedule = self.schedule.model_copy(update=own.model_dump()) if own else self.schedule
        return self.model_copy(update={"schedule": schedule, "intervals": {}})

    @property
    def is_one_shot(self) -> bool:
        """Whether it prunes without training."""
        return self.training is None
