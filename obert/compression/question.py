"""What is asked, and the two experiments that answer it: one to search with, one for the answer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, ValidationError

from obert.experiment.guidelines import FINE_TUNING
from obert.experiment.plan import Plan
from obert.experiment.reading import validate
from obert.experiment.schema import Benchmark, Experiment
from obert.experiment.strict import Name, Strict
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.nodes import this_machine
from obert.foundation.passwords import masked

HELD_OUT = 0.2  # of the examples that final models are trained on, the search does without
SEARCH_SEED, SEEDS = 0, (1, 2)  # of the search, and of the final models
GIVEN = "given"  # the recipe of a model that is taken as it is
ENGINES = ("onnxruntime", "sparse")
SHARED = ("model", "models", "teacher", "teachers", "base_seed", "extensions", "tracking_uri")


class Question(Strict):
    """At which sparsity does a model lose so many points on a task?"""

    name: Name = Field(description="of the experiment that answers it, and of its recipe")
    task: Name
    method: Name
    max_drop: float = Field(ge=0, description="points of the task's primary metric")
    minutes: float | None = Field(None, gt=0, description="for everything")
    threads: int = Field(gt=0, description="of training and of timing")
    shared: dict[str, Any] = Field(description="what both experiments have in common")

    @classmethod
    def of_model(cls, model: str, task: str, source: str | None, teacher: str, **asked: Any) -> Self:
        """About a model on one of the project's tasks.

        Args:
            teacher: recipe of the dense model.
        """
        options = {} if source is None else {"source": source}
        return cls(
            task=task, shared={"model": {"source": model}, "tasks": {task: options}, "teacher": teacher}, **asked
        )

    @classmethod
    def of_experiment(cls, plan: Plan, task: str, **asked: Any) -> Self:
        """About the model of an experiment, with its data and its recipe of the dense model.

        Raises:
            UserError: it has no such task.
        """
        experiment = plan.experiment
        if task not in experiment.tasks:
            raise unknown_name("task", task, experiment.tasks, plan.where)
        if masked(experiment.tracking_uri) != experiment.tracking_uri:
            raise UserError(
                f"{plan.where}, tracking_uri: it has a password, and would be written to further files. Leave the "
                "password out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        shared = experiment.model_dump(mode="json", include=set(SHARED), exclude_defaults=True)
        for by_task in ("models", "teachers"):
            if by_task in shared:
                shared[by_task] = {name: value for name, value in shared[by_task].items() if name == task}
        shared["tasks"] = {task: experiment.tasks[task]}
        dense = experiment.teacher_of(task)
        if (changed := experiment.recipe_overrides.get(task, {}).get(dense)) is not None:
            shared["recipe_overrides"] = {task: {dense: changed}}
        return cls(task=task, shared=shared, **asked)

    def search(
        self, sparsities: Iterable[float], examples: int | None = None, held_out: float = HELD_OUT
    ) -> dict[str, Any]:
        """The experiment whose runs are judged on held-out training examples, never on the validation examples.

        Args:
            examples: for training, those held out included; None for all.
            held_out: share of them.
        """
        content = self._shared(f"{self.name}_search", examples, held_out=held_out)
        about = f"How far {self.task} can be pruned with {self.method}: the search of `obert compress`."
        return {"description": about, **content, "seeds": [SEARCH_SEED], "downstream": self._pruned(sparsities)}

    def final(self, sparsities: Iterable[float], train_examples: int | None) -> dict[str, Any]:
        """The experiment that is judged on validation examples, with seeds that did not choose the sparsity."""
        content = self._shared(self.name, train_examples)
        about = (
            f"{self.task} pruned with {self.method} as far as it is sure to lose at most {self.max_drop:g} points on "
            "held-out training examples: written by `obert compress`."
        )
        timed = Benchmark(engines=ENGINES, recipes=(self.name,), threads=self.threads)
        benchmark = timed.model_dump(mode="json", exclude_defaults=True)
        pruned = self._pruned(sparsities)
        return {"description": about, **content, "seeds": [*SEEDS], "downstream": pruned, "benchmark": benchmark}

    def dense(self) -> Experiment:
        """The experiment of the dense model alone, on all training examples.

        Raises:
            UserError: the model, the task or an option is none.
        """
        return validate(Experiment, {"description": "", **self._shared(self.name, None)}, "the command line")

    def searched(self, examples: int | None = None, held_out: float = HELD_OUT) -> Experiment:
        """The experiment of the dense model that the search compares with.

        Raises:
            UserError: as `dense`.
        """
        return validate(Experiment, self.search((), examples, held_out), "the command line")

    def _shared(self, name: str, train_examples: int | None, **options: Any) -> dict[str, Any]:
        fewer = {} if train_examples is None else {"train_examples": train_examples}
        tasks = {self.task: {**self.shared["tasks"][self.task], **fewer, **options}}
        return {"name": name, **self.shared, "tasks": tasks, "threads": self.threads}

    def _pruned(self, sparsities: Iterable[float]) -> list[dict[str, Any]]:
        found = sorted(sparsities)
        return [{"recipes": [self.name], "methods": [self.method], "sparsities": found}] if found else []


def asked(arguments: Namespace) -> Question:
    """The question of a command line.

    Raises:
        UserError: a value that cannot be, or options that do not go together.
    """
    if arguments.config is not None and arguments.source is not None:
        raise UserError("--source goes with --model or --fine-tuned; an experiment's file names its own data")
    common = {
        "name": arguments.name or f"compress_{arguments.task}",
        "method": arguments.method,
        "max_drop": arguments.max_drop,
        "minutes": arguments.minutes,
        "threads": arguments.threads or this_machine().cpus,
    }
    try:
        if arguments.config is not None:
            return Question.of_experiment(Plan.load(arguments.config), arguments.task, **common)
        given, teacher = arguments.fine_tuned, GIVEN if arguments.fine_tuned else FINE_TUNING
        return Question.of_model(given or arguments.model, arguments.task, arguments.source, teacher, **common)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{option}: {first['msg']} (found {first['input']!r})") from None
