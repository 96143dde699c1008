"""Table 17 of the oBERT paper: size and speed of compressed models."""

import math

import pandas as pd

from obert.statistics import DASH, format_number
from obert.tables import Base, Note, Results
from obert.tables._deployed import PAPER, Deployed, Speed, measured, published
from obert.tables._measured import scale

ROW = "row"
ROW_COLUMNS = ("task", "metric", "layers", "sparsity", "compression", "model")
SIZES = ("score", "recall", "size_gzip_mb", "compression_ratio")
SPEEDS = ("throughput", "speedup", "score")


class Table17(Base):
    """Rows are models; column groups are the paper's numbers, this experiment's, and those of each engine."""

    title = "Table 17 of the oBERT paper, published and measured"
    caption = (
        "Published: as printed in Table 17 of Kurtic et al. 2022 (BERT-base, SQuAD v1.1, DeepSparse on a c5.12xlarge, "
        "batch 32, length 128). Recall: score as percent of the dense model's. Size: the deployed file after gzip, in "
        "MB (10^6 bytes); ratio: the dense model's size over it. Throughput in items/s and speed-up over the dense "
        "float32 model in the same engine and process; the score beside them is that of the very file that was timed, "
        "in that engine. First seed. A dash: not published, or not run."
    )

    section = "Published and measured"

    def build(self, results: Results) -> pd.DataFrame:
        theirs, ours = {row.place: row for row in published(results)}, measured(results)
        engines = sorted({engine for row in ours for engine in row.speeds})
        columns = [(ROW, name) for name in ROW_COLUMNS]
        columns += [(group, name) for group in ("published", "measured") for name in SIZES]
        columns += [("published, deepsparse", name) for name in SPEEDS[:2]]
        columns += [(engine, name) for engine in engines for name in SPEEDS]
        same = {place: [row for row in ours if row.place == place] for place in theirs}
        pairs = [(theirs[place], row) for place, rows in same.items() for row in rows or [None]]
        pairs += [(None, row) for row in ours if row.place not in theirs]
        rows = [_cells(their, own, engines) for their, own in pairs]
        return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        row = content[ROW]
        shown = {("", name): row[name] for name in ("task", "metric")}
        shown["", "layers"] = [format_number(value, 0) for value in row["layers"]]
        shown["", "sparsity %"] = [format_number(100 * value, 1) for value in row["sparsity"]]
        shown |= {("", name): row[name] for name in ("compression", "model")}
        for group, name in content.columns:
            if group != ROW:
                digits = 1 if name in ("throughput", "size_gzip_mb") else 2
                sign = "×" if name in ("speedup", "compression_ratio") else ""  # noqa: RUF001
                values = content[group, name]
                shown[group, name] = [DASH if math.isnan(v) else f"{format_number(v, digits)}{sign}" for v in values]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        paper = results.published.papers[PAPER]
        notes = [Note(f"Published: {paper.title}. {paper.reference}; {paper.model}.")]
        if scale(results):
            notes.append(Note(f"Measured, another scale unless it says the same: {scale(results)}."))
        return tuple(notes)


def _cells(their: Deployed | None, own: Deployed | None, engines: list[str]) -> dict[tuple, object]:
    row = {(ROW, name): getattr(own or their, name) for name in ROW_COLUMNS}
    for group, model in (("published", their), ("measured", own)):
        row |= {(group, name): math.nan if model is None else getattr(model, name) for name in SIZES}
    if their is not None:
        row |= {("published, deepsparse", name): getattr(their.speeds["deepsparse"], name) for name in SPEEDS[:2]}
    speeds = {} if own is None else own.speeds
    return row | {(e, name): getattr(speeds.get(e, Speed()), name) for e in engines for name in SPEEDS}
