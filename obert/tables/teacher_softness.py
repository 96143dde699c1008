"""Figure: how soft each task's teacher is by temperature, on validation examples that it was not trained on."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from obert.foundation import registry
from obert.heads.regression import Regression
from obert.records.record import PREDICTIONS, TEACHER_LOGITS, Record
from obert.statistics.formatting import format_number
from obert.statistics.softness import mean_and_quantiles, relative_entropy, softened
from obert.tables import Note, Results, Table
from obert.tables._figures import STYLE, shades
from obert.tables._panels import empty_figure, panels

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 7.5, 10.0)
DRAWN = (1.0, 2.0, 5.5, 10.0)  # of the examples
COLUMNS = ("task", "output", "temperature", "quantity", "statistic", "value", "distributions", "outcomes")
ENTROPY, TOP = "entropy / ln n", "top probability"
EXAMPLES = {"surest": 0.05, "middle": 0.5, "least sure": 0.95}  # by the quantile of their entropy at T = 1
LIKELIEST = 8  # outcomes of an example that are kept

Rows = list[tuple[str, np.ndarray]]


class TeacherSoftness(Table):
    """A row of panels an output of a task's model: entropy, top probability, then three examples."""

    section = "Training and sparsity"
    title = "Softness of the teachers"
    caption = (
        "What distillation compares students with: the softmax of a teacher's logits divided by the temperature, on "
        "validation examples. Entropy is a share of its largest value, ln n: 0 is one-hot; 1 is uniform and says "
        "nothing of the example. The n outcomes are classes, choices or, in question answering, tokens of a feature, "
        "where start and end have a distribution each. Lines are means, bands 25 to 75 % and 5 to 95 % of the "
        "distributions. The examples are those whose entropy at T = 1 is the 5 %, 50 % and 95 % quantile; their "
        f"{LIKELIEST} likeliest outcomes are shown in order."
    )

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for record in results.of_stage("teacher"):
            for output, distributions in _distributions(results, record).items():
                rows += [(record.key.task, output, *row) for row in _summary(distributions)]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        shown = []
        for (task, output, temperature), part in content.groupby(["task", "output", "temperature"], sort=False):
            first = part.iloc[0]
            row = {"task": task, "output": output, "T": f"{temperature:g}"}
            for quantity in (ENTROPY, TOP):
                value = part[part["quantity"] == quantity].set_index("statistic")["value"]
                row[quantity] = format_number(value["mean"], 3)
                row[f"{quantity}: median"] = format_number(value["q50"], 3)
                row[f"{quantity}: 5 to 95 %"] = f"{value['q05']:.3f} to {value['q95']:.3f}"
            shown.append(row | {"distributions": str(first["distributions"]), "n": format_number(first["outcomes"], 0)})
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        numbers, absent = [], []
        for record in results.of_stage("teacher"):
            kind = record.spec.get("task", {}).get("kind") or record.key.task
            if isinstance(registry.load("tasks", kind, results.config).head, Regression):
                numbers.append(record.key.task)
            elif not _distributions(results, record):
                absent.append(record.key)
        notes = []
        if numbers:
            notes.append(Note(f"A number has no distribution and no temperature: {', '.join(numbers)}."))
        if absent:
            tasks = ", ".join(key.task for key in absent)
            text = (
                f"No logits were kept when these teachers were made: {tasks}. To make the teachers again, after which "
                "what was made from them is made again too:"
            )
            notes.append(Note(text, tuple(results.command(key) for key in absent)))
        return tuple(notes)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            parts = list(content.groupby(["task", "output"], sort=False))
            figure, axes = panels(len(parts), 2 + len(EXAMPLES), width=3, height=2.6)
            for row, ((task, output), part) in zip(axes, parts, strict=True):
                for axis, quantity in zip(row, (ENTROPY, TOP), strict=False):
                    _draw_bands(axis, part[part["quantity"] == quantity])
                    axis.set_title(f"{task}, {output}")
                    axis.set_ylabel(quantity)
                    axis.set_ylim(0, 1.02)
                for axis, name in zip(row[2:], EXAMPLES, strict=True):
                    found = part[part["quantity"].str.startswith(f"{name}: ")]
                    for colour, temperature in zip(shades(len(DRAWN)), DRAWN, strict=True):
                        line = found[found["temperature"] == temperature]
                        axis.plot(line["statistic"], line["value"], marker=".", color=colour, label=f"{temperature:g}")
                    axis.set_title(_shortened(found["quantity"].iloc[0]))
                    axis.set_xlabel("outcome, the likeliest first")
                    axis.set_ylabel("probability")
                    axis.set_ylim(0, 1.02)
                row[-1].legend(title="T", fontsize=8)
        return figure


def _distributions(results: Results, record: Record) -> dict[str, Rows]:
    """By output, the id and the logits [distributions, n] of each feature; empty for a teacher that kept none.

    Predictions of multiple choice have scores, and did before logits were kept.

    Raises:
        UserError: the file is damaged.
    """
    kept = (results.folder / record.key.path / TEACHER_LOGITS).is_file()
    found: dict[str, Rows] = {}

    def keep(row: dict) -> None:
        for output, logits in (row["logits"] if kept else _scores(row)).items():
            if logits:
                array = np.array(logits, dtype=float)
                if array.ndim != 2 or not array.size or not np.isfinite(array).all():
                    raise ValueError(f"{output} holds no logits")
                found.setdefault(output, []).append((str(row["id"]), array))

    results.each_line(record.key, TEACHER_LOGITS if kept else PREDICTIONS, keep)
    return found


def _scores(prediction: dict) -> dict[str, list[list[float]]]:
    return {"logits": [prediction["scores"]]} if "scores" in prediction else {}


def _summary(features: Rows) -> Iterator[tuple]:
    """Rows of COLUMNS, those of task and output left out."""
    single = [(name, logits) for name, several in features for logits in several]
    outcomes = float(np.mean([len(logits) for _, logits in single]))
    order = np.argsort([relative_entropy(softened(logits, 1.0)) for _, logits in single], kind="stable")
    examples = {name: single[order[round(share * (len(order) - 1))]] for name, share in EXAMPLES.items()}
    for temperature in TEMPERATURES:
        soft = [softened(logits, temperature) for _, logits in features]
        values = {
            ENTROPY: mean_and_quantiles(np.concatenate([relative_entropy(p) for p in soft])),
            TOP: mean_and_quantiles(np.concatenate([p.max(axis=-1) for p in soft])),
        }
        for name, (identifier, logits) in examples.items():
            likeliest = np.sort(softened(logits, temperature))[::-1][:LIKELIEST]
            values[f"{name}: {identifier}"] = {str(i): float(p) for i, p in enumerate(likeliest, start=1)}
        for quantity, statistics in values.items():
            for statistic, value in statistics.items():
                yield temperature, quantity, statistic, value, len(single), outcomes


def _draw_bands(axis, part: pd.DataFrame) -> None:
    by_statistic = part.pivot_table(index="temperature", columns="statistic", values="value")
    axis.plot(by_statistic.index, by_statistic["mean"], color="C0")
    for low, high, opacity in (("q25", "q75", 0.3), ("q05", "q95", 0.12)):
        axis.fill_between(by_statistic.index, by_statistic[low], by_statistic[high], color="C0", alpha=opacity, lw=0)
    axis.set_xlabel("temperature")


def _shortened(title: str, length: int = 30) -> str:
    return title if len(title) <= length else f"{title[: length - 1]}\N{HORIZONTAL ELLIPSIS}"
