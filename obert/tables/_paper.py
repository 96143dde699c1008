"""Tables of the oBERT paper: published and measured numbers side by side, never mixed."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import ClassVar

import pandas as pd

from obert.statistics.formatting import DASH, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._chance import RULE, Scale
from obert.tables._measured import DENSE, Group, epochs_of, epochs_text, metric_of, metrics_of
from obert.tables._planned import as_planned, paper_notes
from obert.tables._published import Number

ROW = "row"
CHANCE = (ROW, "chance")
PUBLISHED = ("published", "published_std", "published_n", "approximate")
MEASURED = ("measured", "measured_std", "measured_n", "difference", "recovery")
LEGEND = (
    "A star marks what the paper calls approximate. Measured: mean ± sample standard deviation over n seeds of this "
    f"experiment. Difference: measured minus published, in points. {RULE} It is of measured scores alone. A dash: not "
    "published, or not run. Columns after the paper's are this experiment's own."
)


class PaperTable(Table):
    """Rows are tasks, metrics, (layers) and sparsities; column groups are the paper's, then this experiment's own."""

    paper = "obert"
    source: ClassVar[str] = "obert"  # the paper that the numbers are from
    table: ClassVar[str]
    section = "Published and measured"
    needs: ClassVar[str]  # what runs belong here, in words
    by_layers: ClassVar[bool] = False
    primary: ClassVar[bool] = True  # whether there are rows of the tasks' primary metrics
    others: ClassVar[bool] = False  # and of their other ones
    model: ClassVar[str | None] = None  # that the published numbers are of, if not the paper's main one

    @abstractmethod
    def select(self, results: Results, task: str) -> list[Group]:
        """The groups of a task that belong into this table."""

    def build(self, results: Results) -> pd.DataFrame:
        numbers = results.published.table(self.source, self.table)
        found = {pair: groups for task in self.tasks(results) for pair, groups in self._measured(results, task).items()}
        matches = {group.key: self.reproduced(results, group, numbers) for group in chain.from_iterable(found.values())}
        mine = [group for group in chain.from_iterable(found.values()) if matches[group.key] is None]
        published, own = _published_groups(numbers), _own_groups(mine, self.by_layers)
        row_columns = ["task", "metric", *(["layers"] if self.by_layers else []), "sparsity"]
        columns = [*((ROW, name) for name in row_columns), (DENSE, "published"), (DENSE, "measured"), CHANCE]
        columns += [(label, column) for label in published.values() for column in (*PUBLISHED, *MEASURED)]
        columns += [(label, c) for label in dict.fromkeys(own.values()) for c in MEASURED if c != "difference"]
        rows = []
        for task, metric in dict.fromkeys([*((n.task, n.metric) for n in numbers), *found]):
            scale = Scale.of(results, task, metric)
            of_metric = [n for n in numbers if (n.task, n.metric) == (task, metric)]
            base = next((n for n in of_metric if n.is_dense), None)
            groups = found.get((task, metric), [])
            levels = {self._level(n.layers, n.sparsity) for n in of_metric if not n.is_dense}
            levels |= {self._level(group.layers, group.sparsity) for group in groups}
            for layers, sparsity in sorted(levels, key=lambda level: (-(level[0] or 0), level[1])):
                row = {(ROW, "task"): task, (ROW, "metric"): metric, (ROW, "sparsity"): sparsity}
                row |= {(ROW, "layers"): layers} if self.by_layers else {}
                row |= {(DENSE, "published"): base.value if base else math.nan, (DENSE, "measured"): scale.dense}
                row[CHANCE] = scale.chance
                for number in of_metric:
                    if not number.is_dense and self._level(number.layers, number.sparsity) == (layers, sparsity):
                        row |= _published_cells(published[_identity(number)], number)
                for group in groups:
                    if self._level(group.layers, group.sparsity) == (layers, sparsity):
                        number = matches[group.key]
                        label = own[_variant(group)] if number is None else published[_identity(number)]
                        row |= _measured_cells(label, group, scale, row)
                rows.append(row)
        return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))

    def methods(self, results: Results) -> dict[str, str]:
        """Our name of the method of each column group, `dense` for what is not pruned."""
        numbers = results.published.table(self.source, self.table)
        measured = (self._measured(results, task).values() for task in self.tasks(results))
        groups = list(chain.from_iterable(chain.from_iterable(measured)))
        own = _own_groups((g for g in groups if self.reproduced(results, g, numbers) is None), self.by_layers)
        published = _published_groups(numbers)
        methods = {published[_identity(number)]: number.method or DENSE for number in numbers if not number.is_dense}
        return methods | {label: method or DENSE for (_, method), label in own.items()}

    def tasks(self, results: Results) -> tuple[str, ...]:
        """Those that belong here: of the experiment's own encoder, where the numbers are of the paper's main model."""
        return results.tasks if self.model else results.main_tasks

    def reproduced(self, results: Results, group: Group, numbers: tuple[Number, ...]) -> Number | None:
        """A published number that a measured group reproduces, by recipe and method."""
        return next((n for n in numbers if (n.recipe, n.method) == _variant(group)), None)

    def _measured(self, results: Results, task: str) -> dict[tuple[str, str], list[Group]]:
        """By (task, metric): what was measured of the groups that belong here."""
        groups, primary = self.select(results, task), metric_of(results, task)
        found = {}
        for metric in metrics_of(results, task) if groups else ():
            measured = [group for g in groups if (group := g.of_metric(metric)).score.n]
            if measured and (self.primary if metric == primary else self.others):
                found[task, metric] = measured
        return found

    def _level(self, layers: int | None, sparsity: float) -> tuple[int | None, float]:
        return (layers if self.by_layers else None), sparsity

    def is_measured(self, content: pd.DataFrame) -> bool:
        return has_measured(content)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        shown = {
            ("", "task"): content[ROW, "task"],
            ("", "metric"): content[ROW, "metric"],
            **({("", "layers"): [format_number(v, 0) for v in content[ROW, "layers"]]} if self.by_layers else {}),
            ("dense", "published"): [format_number(v) for v in content[DENSE, "published"]],
            ("dense", "measured"): [format_number(v) for v in content[DENSE, "measured"]],
            ("", "chance"): [format_number(v) for v in content[CHANCE]],
            ("", "sparsity %"): [format_number(100 * v, 1) for v in content[ROW, "sparsity"]],
        }
        for label in dict.fromkeys(label for label, _ in content.columns if label not in (ROW, DENSE)):
            part = content[label]
            if "published" in part:
                shown[label, "published"] = [_published_text(*v) for v in part[list(PUBLISHED)].itertuples(index=False)]
            measured = part[["measured", "measured_std", "measured_n"]].itertuples(index=False)
            shown[label, "measured"] = [format_summary(*v) for v in measured]
            if "difference" in part:
                shown[label, "difference"] = [format_number(v, signed=True) for v in part["difference"]]
            shown[label, "recovery %"] = [format_number(v, 1) for v in part["recovery"]]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        complete = as_planned(results)
        tasks = [task for task in self.tasks(results) if self.primary or len(metrics_of(results, task)) != 1]
        found = [group for task in tasks for group in self.select(complete, task)]
        keys = [record.key for group in found for record in group.records]
        return paper_notes(results, self.source, keys, self.needs, self.model)


def has_measured(content: pd.DataFrame) -> bool:
    """Whether a cell below "measured" has a value, that of the dense model left out."""
    cells = [column for column in content.columns if column[1] == "measured" and column[0] != DENSE]
    return bool(content[cells].notna().any(axis=None))


def _identity(number: Number) -> tuple:
    return number.label, number.epochs


def _variant(group: Group) -> tuple:
    return group.key.recipe, group.key.method


def _published_groups(numbers: tuple[Number, ...]) -> dict[tuple, str]:
    """Labels of the paper's column groups, fewest epochs first, as in the paper."""
    pruned = sorted((n for n in numbers if not n.is_dense), key=lambda n: n.epochs or 0)
    return {_identity(n): f"{n.label}, {epochs_text({n.epochs})}" if n.epochs else n.label for n in pruned}


def _own_groups(found: Iterable[Group], by_layers: bool) -> dict[tuple, str]:
    """Labels of what is measured but in no published column: recipe, method, epochs, scale."""
    own: dict[tuple, list[Group]] = {}
    for group in found:
        own.setdefault(_variant(group), []).append(group)
    labels = {}
    for variant, members in own.items():
        records = [record for group in members for record in group.records]
        layers = sorted({str(group.layers) for group in members if group.layers})
        size = f", {'/'.join(layers)} layers" if layers and not by_layers else ""
        epochs = epochs_text(set(map(epochs_of, records)))
        labels[variant] = f"{members[0].key.recipe}: {members[0].method}, {epochs}{size}"
    return labels


def _published_cells(label: str, number: Number) -> dict:
    values = (number.value, number.std, number.runs, number.approximate)
    return {(label, column): value for column, value in zip(PUBLISHED, values, strict=True)}


def _measured_cells(label: str, group: Group, scale: Scale, row: dict) -> dict:
    mean = group.score.mean
    values = (mean, group.score.std, group.score.n)
    values += (mean - row.get((label, "published"), math.nan), scale.recovery(mean))
    return {(label, column): value for column, value in zip(MEASURED, values, strict=True)}


def _published_text(value: float, std: float, runs: float, approximate: object) -> str:
    if pd.isna(value):
        return DASH
    text = format_number(value) if pd.isna(std) else format_summary(value, std, runs)
    return f"{text}*" if approximate is True else text
