"""The second-order solvers against each other and against magnitude: the shape of Table 4 of the oBERT paper."""

import json
import math

import pandas as pd

from obert.statistics.formatting import format_difference, format_number, format_setting, format_summary
from obert.tables import Note, Results, Table
from obert.tables._measured import Group, epochs_of, epochs_text, groups, metric_of, recipe_of, scale_text, score
from obert.tables._ranking import DIFFERENCE, difference_columns, differences

ROW = "row"
ROW_COLUMNS = ("task", "metric", "training", "pattern", "sparsity", "gradients", "block", "dampening", "dense")
MEASURED = ("mean", "std", "n")
PARAMETERS = ("num_gradients", "fisher_block_size", "dampening")
SOLVERS = ("independent", "joint", "greedy")  # the paper's first


class Solvers(Table):
    """Rows share everything but the method and its solver; column groups are magnitude, then a solver each."""

    title = "Second-order solvers"
    caption = (
        "Mean ± sample standard deviation over n seeds. The models of a row share start, schedule, pattern and "
        "data order; the second-order ones also share number of gradients, block size and dampening. Only the solver "
        "differs. A difference to the paper's solver, `independent`, has its 95 % interval over seeds "
        "and examples, for itself alone."
    )

    def build(self, results: Results) -> pd.DataFrame:
        rows: dict[tuple, dict[str, Group]] = {}  # the groups of a row by their column
        for task in results.tasks:
            found = [g for g in groups(results, task) if _solver(g)]
            plain = [g for g in groups(results, task) if g.key.method == "magnitude"]
            for group in sorted(found, key=_order):
                identity = (task, group.key.sparsity, _setting(group), _parameters(group))
                rivals = [g for g in plain if g.key.sparsity == group.key.sparsity and _setting(g) == _setting(group)]
                rows.setdefault(identity, {}).update({_label(g): g for g in (*rivals, group)})
        labels = sorted({label for members in rows.values() for label in members}, key=_label_order)
        content = [_row(results, members) for members in rows.values()]
        compared = {label for row in content for label, name in row if name in DIFFERENCE}
        columns = [(ROW, name) for name in ROW_COLUMNS]
        columns += [(at, name) for at in labels for name in MEASURED + (DIFFERENCE if at in compared else ())]
        return pd.DataFrame(content, columns=pd.MultiIndex.from_tuples(columns))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        row = content[ROW]
        shown = {name: row[name] for name in ("task", "metric", "training", "pattern")}
        shown["sparsity %"] = [format_number(100 * value, 1) for value in row["sparsity"]]
        shown |= {name: [format_number(v, 0) for v in row[name]] for name in ("gradients", "block")}
        shown["dampening"] = list(map(format_setting, row["dampening"]))
        shown["dense"] = [format_number(value) for value in row["dense"]]
        for label in dict.fromkeys(label for label, _ in content.columns if label != ROW):
            shown[label] = [format_summary(*v) for v in content[label][list(MEASURED)].itertuples(index=False)]
        for label in dict.fromkeys(label for label, name in content.columns if name in DIFFERENCE):
            values = content[label][list(DIFFERENCE)].itertuples(index=False)
            shown[f"{label} less {SOLVERS[0]}"] = [format_difference(*v) for v in values]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        return (Note(f"{scale_text(results)}."),) if scale_text(results) else ()


def _method(group: Group) -> dict:
    return group.records[0].spec.get("method") or {}


def _solver(group: Group) -> str | None:
    return _method(group).get("solver")


def _setting(group: Group) -> str:
    """What the runs of a row share besides the method: start, training, schedule, pattern, distillation."""
    return json.dumps(group.records[0].spec.get("recipe"), sort_keys=True)


def _parameters(group: Group) -> str:
    return json.dumps({k: v for k, v in _method(group).items() if k != "solver"}, sort_keys=True)


def _label(group: Group) -> str:
    return f"{group.key.method}, {_solver(group)}" if _solver(group) else group.key.method


def _label_order(label: str) -> tuple:
    """Magnitude, then the paper's solver, then ours."""
    method, _, solver = label.partition(", ")
    known = ("", *SOLVERS)
    return bool(solver), method, known.index(solver) if solver in known else len(known)


def _order(group: Group) -> tuple:
    record = group.records[0]
    return (epochs_of(record) or 0.0, str(recipe_of(record).get("pattern", "")), group.key.sparsity)


def _row(results: Results, members: dict[str, Group]) -> dict[tuple[str, str], object]:
    """A row from its groups by column."""
    group = next(filter(_solver, members.values()))
    record, method = group.records[0], _method(group)
    pattern = str(recipe_of(record).get("pattern", ""))
    values = (group.key.task, metric_of(results, group.key.task), epochs_text({epochs_of(record)}), pattern)
    values += (group.key.sparsity, *(method.get(name, math.nan) for name in PARAMETERS))
    values += (score(results.dense(group.key.task)),)
    row = {(ROW, name): value for name, value in zip(ROW_COLUMNS, values, strict=True)}
    for label, member in members.items():
        cells = (member.score.mean, member.score.std, member.score.n)
        row |= {(label, name): value for name, value in zip(MEASURED, cells, strict=True)}
        paper = members.get(f"{member.key.method}, {SOLVERS[0]}")
        if paper and paper.score.n and member.score.n and _solver(member) in SOLVERS[1:]:
            cells = difference_columns(differences(results, [member, paper])[0, 1])
            row |= {(label, name): value for name, value in cells.items()}
    return row
