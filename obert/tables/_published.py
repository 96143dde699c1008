"""Published numbers, kept apart from measured ones: `configs/published.yaml` and its schema."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from obert.experiment.reading import validate
from obert.experiment.recipe import LearningRate, SparsitySchedule
from obert.experiment.schema import RUN_RECIPE
from obert.experiment.strict import Fraction, Name, Strict
from obert.experiment.yaml_file import read_yaml

SCORES = ("accuracy", "accuracy_mismatched", "exact_match", "f1", "matthews", "pearson", "spearman")
PATH = Path("configs/published.yaml")


class Paper(Strict):
    """A publication that numbers are from.

    Attributes:
        sparsity_of: what its sparsities are a share of: `encoder`, the encoder's linear layers; `matrices`, all weight
            matrices, embeddings and head included.
        claims: what its abstract says, in words, where no number of it is known.
        unread: why it has no numbers here.
    """

    title: str
    reference: str
    model: str
    sparsity_of: Literal["encoder", "matrices"] = "encoder"
    claims: tuple[str, ...] = ()
    unread: str | None = None


class Number(Strict):
    """One cell of a published table.

    Attributes:
        sparsity: of the weights that the paper counts (`Paper.sparsity_of`); None for the table's dense baseline.
        layers: of the encoder, where the table has several.
        method: our name of the pruning method, None for what is not pruned.
        label: the paper's name of the column; None for the dense baseline.
        recipe: our recipe (`<recipe>@<upstream recipe>`) that reproduces it, if there is one.
        value: scores in percent, throughput in items/s, size in MB, weights in millions; the mean of `runs` runs with
            sample standard deviation `std`, where the paper says so. None if it is at chance.
        approximate: the paper marks it as read off a figure, or we read it where the figure hides part of its marker.
        reading_error: of a value that we read off a figure, in its unit, either way.
        at_chance: the figure shows it on the line of chance, so that no value can be told.
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
    value: Annotated[float, Field(ge=0)] | None = None
    std: float | None = Field(None, gt=0)
    runs: int | None = Field(None, gt=0)
    approximate: bool = False
    reading_error: float | None = Field(None, gt=0)
    at_chance: bool = False

    @property
    def is_dense(self) -> bool:
        return self.label is None

    @model_validator(mode="after")
    def _pruned_or_dense(self):
        if (self.sparsity is None) != (self.label is None) or bool(self.sparsity) != bool(self.method):
            raise ValueError("give sparsity, label and (unless it is 0) method, or, for a dense baseline, none of them")
        if self.is_dense and (self.epochs or self.recipe or self.layers):
            raise ValueError("a dense baseline takes no epochs, recipe or layers")
        if (self.value is None) != self.at_chance:
            raise ValueError("give value, or at_chance, not both")
        if self.metric in SCORES and self.value is not None and self.value > 100:
            raise ValueError(f"{self.metric} is in percent, found {self.value:g}")
        return self


class Curve(Strict):
    """A line of a figure, with the values that we read off it.

    Attributes:
        values: one a sparsity: a number; `~` and a number where part of the marker is hidden; or `chance`.
        reading_error: of the values without `~`, in percentage points, either way.
    """

    paper: Name
    table: str
    task: Name
    metric: str
    method: Name
    label: str
    recipe: Annotated[str, Field(pattern=RUN_RECIPE)] | None = None
    sparsities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    values: tuple[float | Literal["chance"] | Annotated[str, Field(pattern=r"^~\d+(\.\d+)?$")], ...]
    reading_error: float = Field(gt=0)

    @model_validator(mode="after")
    def _a_value_each(self):
        if len(self.values) != len(self.sparsities):
            raise ValueError(f"{len(self.values)} values for {len(self.sparsities)} sparsities")
        if len(set(self.sparsities)) < len(self.sparsities):
            raise ValueError("a sparsity appears twice")
        for value in self.values:
            number = self._cell(value).get("value", 0.0)
            if self.metric in SCORES and not 0 <= number <= 100:
                raise ValueError(f"{self.metric} is in percent, found {value}")
        return self

    def numbers(self) -> tuple[Number, ...]:
        """The curve as cells of a table."""
        shared = self.model_dump(include={"paper", "table", "task", "metric", "method", "label", "recipe"})
        pairs = zip(self.sparsities, self.values, strict=True)
        return tuple(Number(**shared, sparsity=sparsity, **self._cell(value)) for sparsity, value in pairs)

    def _cell(self, value: float | str) -> dict[str, Any]:
        if value == "chance":
            return {"at_chance": True}
        if isinstance(value, str):
            return {"value": float(value.removeprefix("~")), "approximate": True}
        return {"value": value, "reading_error": self.reading_error}


class Schedule(Strict):
    """How a paper trains and prunes for a number of epochs."""

    paper: Name
    epochs: float = Field(gt=0)
    learning_rate: LearningRate
    sparsity: SparsitySchedule


class Published(Strict):
    """The content of `configs/published.yaml`.

    Attributes:
        chance: accuracy of guessing on the tasks of the curves, in percent: 100 over the number of choices.
    """

    papers: dict[Name, Paper]
    schedules: tuple[Schedule, ...] = ()
    numbers: tuple[Number, ...]
    curves: tuple[Curve, ...] = ()
    chance: dict[Name, Annotated[float, Field(gt=0, lt=100)]] = {}

    @cached_property
    def _cells(self) -> tuple[Number, ...]:
        return (*self.numbers, *(number for curve in self.curves for number in curve.numbers()))

    @model_validator(mode="after")
    def _known_and_unique(self):
        seen = set()
        for found in (*self.schedules, *self._cells):
            if found.paper not in self.papers:
                raise ValueError(f"paper '{found.paper}' is not one of {sorted(self.papers)}")
        for number in self._cells:
            cell = (number.paper, number.table, number.task, number.metric, number.sparsity, number.label)
            cell += (number.epochs, number.layers)
            if cell in seen:
                raise ValueError(f"two numbers for one cell: {cell}")
            seen.add(cell)
        return self

    def table(self, paper: str, table: str) -> tuple[Number, ...]:
        """The cells of one table, in the order of the file, those of curves last."""
        return tuple(n for n in self._cells if (n.paper, n.table) == (paper, table))

    def schedule(self, paper: str, epochs: float) -> Schedule:
        """The paper's schedule of that many epochs."""
        return next(s for s in self.schedules if (s.paper, s.epochs) == (paper, epochs))


def load_published(path: Path = PATH) -> Published:
    """All published numbers.

    Raises:
        UserError: a mistake in the file, with its key.
    """
    return validate(Published, read_yaml(path), str(path))
