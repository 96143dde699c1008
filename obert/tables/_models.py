"""Tables of the oBERT paper with a row a model: what it scores, how large and how fast it is."""

import math
from typing import ClassVar

import pandas as pd

from obert.statistics.formatting import DASH, format_number
from obert.tables import Note, Results, Table
from obert.tables._chance import RULE
from obert.tables._deployed import Deployed, Speed, measured_models, planned_models, published_models
from obert.tables._engines import MARK, OVER, UNDER_LOAD, engine_notes, marked
from obert.tables._planned import paper_notes

ROW = "row"
ROW_COLUMNS = ("task", "metric", "layers", "sparsity", "compression", "model")
OF_ENGINES = ("dense", "score", UNDER_LOAD)
LEGEND = (
    f"Measured recall is recovery. {RULE} Published recall, as the paper has it, is the score as a percentage of the "
    f"dense model's, chance or not. Difference: measured minus published score, in points. Measured speed-up: {OVER}; "
    "published: over the dense model in the paper's own engine. Beside it: the throughput in items/s that it is over, "
    f"and the score of the timed file in that engine. All of the first seed. {MARK}: timed while the machine was busy "
    "with something else. A dash: not published, or not run."
)


class ModelTable(Table):
    """Rows are models; column groups are the paper's numbers, this experiment's, and those of each engine."""

    paper = "obert"
    section = "Published and measured"
    table: ClassVar[str]
    engine: ClassVar[str]  # what the published speeds are from
    sizes: ClassVar[tuple[str, ...]]
    speeds: ClassVar[tuple[str, ...]]
    needs: ClassVar[str]  # what runs belong here, in words
    of: ClassVar[str | None] = None  # the model of the published numbers, if not the paper's main one

    def belongs(self, model: Deployed) -> bool:
        """Whether an exported model is one for this table."""
        return True

    def tasks(self, results: Results) -> tuple[str, ...]:
        """Those whose models belong here: by default of the experiment's own encoder, the paper's main model."""
        return results.main_tasks

    def measured(self, results: Results) -> list[Deployed]:
        """The exported models that belong here."""
        return self.belonging(results, measured_models(results))

    def belonging(self, results: Results, models: list[Deployed]) -> list[Deployed]:
        """Those of some exported models that belong here."""
        return [model for model in models if model.task in self.tasks(results) and self.belongs(model)]

    def build(self, results: Results) -> pd.DataFrame:
        theirs = {row.place: row for row in published_models(results, self.paper, self.table, self.engine)}
        ours = self.measured(results)
        engines = sorted({engine for row in ours for engine in row.speeds})
        columns = [(ROW, name) for name in ROW_COLUMNS]
        columns += [("published", name) for name in self.sizes]
        columns += [(f"published, {self.engine}", name) for name in self.speeds]
        columns += [("measured", name) for name in dict.fromkeys((*self.sizes, "difference", "chance", "recall"))]
        columns += [(engine, name) for engine in engines for name in (*self.speeds, *OF_ENGINES)]
        same = {place: [row for row in ours if row.place == place] for place in theirs}
        pairs = [(theirs[place], row) for place, rows in same.items() for row in rows or [None]]
        pairs += [(None, row) for row in ours if row.place not in theirs]
        rows = [self._cells(their, own, engines) for their, own in pairs]
        return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))

    def _cells(self, their: Deployed | None, own: Deployed | None, engines: list[str]) -> dict[tuple, object]:
        row = {(ROW, name): getattr(own or their, name) for name in ROW_COLUMNS}
        for group, model in (("published", their), ("measured", own)):
            row |= {(group, name): math.nan if model is None else getattr(model, name) for name in self.sizes}
        row |= {("measured", name): getattr(own, name) if own else math.nan for name in ("chance", "recall")}
        row["measured", "difference"] = own.score - their.score if own and their else math.nan
        if their is not None:
            group, speed = f"published, {self.engine}", their.speeds[self.engine]
            row |= {(group, name): getattr(speed, name) for name in self.speeds}
        speeds = {} if own is None else own.speeds
        return row | {(e, n): getattr(speeds.get(e, Speed()), n) for e in engines for n in (*self.speeds, *OF_ENGINES)}

    def is_measured(self, content: pd.DataFrame) -> bool:
        return bool(content["measured"].notna().any(axis=None))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        row = content[ROW]
        shown = {("", name): row[name] for name in ("task", "metric")}
        shown["", "layers"] = [format_number(value, 0) for value in row["layers"]]
        shown["", "sparsity %"] = [format_number(100 * value, 1) for value in row["sparsity"]]
        shown |= {("", name): row[name] for name in ("compression", "model")}
        for group, name in content.columns:
            if group != ROW and name != UNDER_LOAD:
                texts = [_text(name, value) for value in content[group, name]]
                if name == "speedup" and (group, UNDER_LOAD) in content:
                    texts = list(map(marked, texts, content[group, UNDER_LOAD]))
                shown[group, "dense items/s" if name == "dense" else name] = texts
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        keys = [model.key for model in self.belonging(results, planned_models(results))]
        source, *others = paper_notes(results, self.paper, keys, self.needs, self.of)
        return (source, *engine_notes(results), *others)


def _text(name: str, value: float) -> str:
    if math.isnan(value):
        return DASH
    digits = 1 if name in ("throughput", "dense", "size_gzip_mb", "size_mb") else 2
    number = format_number(value, digits, name == "difference")
    return f"{number}×" if name == "speedup" or name.endswith("_ratio") else number  # noqa: RUF001
