"""Tables of standard deviations, of the same runs as other tables."""

from typing import ClassVar

import pandas as pd

from obert.statistics.formatting import format_number
from obert.tables import Note, Results, Table
from obert.tables._paper import ROW, PaperTable

ROW_COLUMNS = ("task", "metric", "sparsity")
COLUMNS = ("published_std", "published_n", "measured_std", "measured_n", "difference")
CAPTION = (
    "Standard deviations of the scores of Tables {tables}. Published: as printed in Table {number} of Kurtic et al. "
    "2022, of {runs} runs. Measured: sample standard deviations over n seeds of this experiment; a dash for fewer than "
    "two. Difference: measured minus published."
)


class Spreads(Table):
    """The rows and column groups of some tables that have a standard deviation."""

    paper = "obert"
    section = "Published and measured"
    tables: ClassVar[tuple[type[PaperTable], ...]]

    def build(self, results: Results) -> pd.DataFrame:
        content = pd.concat([table().build(results) for table in self.tables], ignore_index=True)
        spread = content[[c for c in content.columns if c[1] in ("published_std", "measured_std")]]
        labels = list(dict.fromkeys(column[0] for column in spread.columns if spread[column].notna().any()))
        for label in labels:
            if (label, "published_std") in content:
                content[label, "difference"] = content[label, "measured_std"] - content[label, "published_std"]
        columns = [(ROW, name) for name in ROW_COLUMNS]
        columns += [(label, name) for label in labels for name in COLUMNS if (label, name) in content]
        kept = content.loc[spread.notna().any(axis=1), columns]
        order = {task: place for place, task in enumerate(kept[ROW, "task"].unique())}
        return kept.sort_values((ROW, "task"), key=lambda tasks: tasks.map(order), kind="stable", ignore_index=True)

    def is_measured(self, content: pd.DataFrame) -> bool:
        return any(content[column].notna().any() for column in content.columns if column[1] == "measured_std")

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        shown = {("", name): content[ROW, name] for name in ("task", "metric")}
        shown["", "sparsity %"] = [format_number(100 * value, 1) for value in content[ROW, "sparsity"]]
        for label in dict.fromkeys(label for label, _ in content.columns if label != ROW):
            part = content[label]
            for kind in ("published", "measured"):
                if f"{kind}_std" in part:
                    pairs = part[[f"{kind}_std", f"{kind}_n"]].itertuples(index=False)
                    shown[label, kind] = [_text(*pair) for pair in pairs]
            if "difference" in part:
                shown[label, "difference"] = [format_number(value, signed=True) for value in part["difference"]]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = self.tables[0]().notes(results)
        if any(key not in results.by_key for key in results.planned) or self.is_measured(self.build(results)):
            return notes
        return (*notes, Note("No deviation was measured: that takes two seeds or more of one of these runs."))


def _text(std: float, runs: float) -> str:
    return format_number(std) if pd.isna(std) else f"{format_number(std)} (n={runs:.0f})"
