"""Published numbers, kept apart from measured ones: `configs/published.yaml` and its schema."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from obert.experiment.reading import read_yaml, validate
from obert.experiment.recipe import LearningRate, SparsitySchedule
from obert.experiment.schema import RUN_RECIPE
from obert.experiment.strict import Fraction, Name, Strict

SCORES = ("accuracy", "accuracy_mismatched", "exact_match", "f1", "matthews", "pearson", "spearman")
PATH = Path("configs/published.yaml")


class Paper(Strict):
    """A publication that numbers are from."""

    title: str
    reference: str
    model: str


class Number(Strict):
    """One cell of a published table.

    Attributes:
        sparsity: of the encoder's weights; None for the table's dense baseline.
        layers: of the encoder, where the table has several.
        method: our name of the pruning method, None for what is not pruned.
        label: the paper's name of the column; None for the dense baseline.
        recipe: our recipe (`<recipe>@<upstream recipe>`) that reproduces it, if there is one.
        value: scores in percent, throughput in items/s, size in MB, weights in millions; the mean of `runs` runs with
            sample standard deviation `std`, where the paper says so.
        approximate: the paper marks it as read off a figure.
    """

    paper: Name
    table: str
    task: Name
    metric: str
    sparsity: Fraction | None = None
    layers: int | None = Field(None, gt=0)
    method: Name | None = None
    label: str | None = None
    epochs: float | None = Field(None, gt=0)
    recipe: Annotated[str, Field(pattern=RUN_RECIPE)] | None = None
    value: Annotated[float, Field(ge=0)]
    std: float | None = Field(None, gt=0)
    runs: int | None = Field(None, gt=0)
    approximate: bool = False

    @property
    def is_dense(self) -> bool:
        return self.label is None

    @model_validator(mode="after")
    def _pruned_or_dense(self):
        if (self.sparsity is None) != (self.label is None) or bool(self.sparsity) != bool(self.method):
            raise ValueError("give sparsity, label and (unless it is 0) method, or, for a dense baseline, none of them")
        if self.is_dense and (self.epochs or self.recipe or self.layers):
            raise ValueError("a dense baseline takes no epochs, recipe or layers")
        if self.metric in SCORES and self.value > 100:
            raise ValueError(f"{self.metric} is in percent, found {self.value:g}")
        return self


class Schedule(Strict):
    """How a paper trains and prunes for a number of epochs."""

    paper: Name
    epochs: float = Field(gt=0)
    learning_rate: LearningRate
    sparsity: SparsitySchedule


class Published(Strict):
    """The content of `configs/published.yaml`."""

    papers: dict[Name, Paper]
    schedules: tuple[Schedule, ...] = ()
    numbers: tuple[Number, ...]

    @model_validator(mode="after")
    def _known_and_unique(self):
        seen = set()
        for found in (*self.schedules, *self.numbers):
            if found.paper not in self.papers:
                raise ValueError(f"paper '{found.paper}' is not one of {sorted(self.papers)}")
        for number in self.numbers:
            cell = (number.paper, number.table, number.task, number.metric, number.sparsity, number.label)
            cell += (number.epochs, number.layers)
            if cell in seen:
                raise ValueError(f"two numbers for one cell: {cell}")
            seen.add(cell)
        return self

    def table(self, paper: str, table: str) -> tuple[Number, ...]:
        """The cells of one table, in the order of the file."""
        return tuple(n for n in self.numbers if (n.paper, n.table) == (paper, table))

    def schedule(self, paper: str, epochs: float) -> Schedule:
        """The paper's schedule of that many epochs."""
        return next(s for s in self.schedules if (s.paper, s.epochs) == (paper, epochs))


def load_published(path: Path = PATH) -> Published:
    """All published numbers.

    Raises:
        UserError: a mistake in the file, with its key.
    """
    return validate(Published, read_yaml(path), str(path))
