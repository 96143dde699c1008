"""What code, machine and packages made an experiment's runs."""

from collections.abc import Iterable

import pandas as pd

from obert.records.durations import run_seconds
from obert.records.record import Record
from obert.statistics.formatting import DASH, format_number
from obert.tables import Results, Table

MADE_BY = ("stage", "task", "method", "code_hash", "commit", "changed", "device", "torch")
COLUMNS = (*MADE_BY, "runs", "hours")
COMMIT, CODE = 10, 8  # characters of names that are shown


class Provenance(Table):
    """A row a stage, task and method, and a further one wherever the same was made by other code or elsewhere."""

    title = "What made these numbers"
    caption = (
        "The code is named by a hash of all files that decide such a run, so that a change elsewhere leaves it as it "
        "is; the commit is that of the whole project when the run began, + where files differed from it. Hours are "
        "those of all runs together, waiting left out. Two names in one block: its rows were not made by the same code."
    )

    def build(self, results: Results) -> pd.DataFrame:
        rows: dict[tuple, list[Record]] = {}
        for key in results.planned:
            if (record := results.by_key.get(key)) is not None:
                rows.setdefault(_made_by(record), []).append(record)
        return pd.DataFrame([(*by, len(of), _hours(of)) for by, of in rows.items()], columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        commits = content["commit"].str[:COMMIT].where(content["commit"] != "", DASH)
        return pd.DataFrame({
            "stage": content["stage"],
            "task": content["task"],
            "method": content["method"].where(content["method"] != "", DASH),
            "code": content["code_hash"].str[:CODE],
            "commit": commits + content["changed"].map({True: " +", False: ""}),
            "made on": content["device"],
            "torch": content["torch"].where(content["torch"] != "", DASH),
            "runs": content["runs"].astype(str),
            "hours": content["hours"].map(lambda hours: format_number(hours, 2)),
        })  # fmt: skip


def _made_by(record: Record) -> tuple:
    """The values of `MADE_BY`; empty for what is not known."""
    key, said = record.key, record.environment
    return (
        key.stage,
        key.task,
        key.method or "",
        record.code_hash,
        said.get("git_commit") or "",
        bool(said.get("git_dirty")),
        said.get("gpu") or said.get("cpu") or "",
        said.get("packages", {}).get("torch") or "",
    )


def _hours(records: Iterable[Record]) -> float:
    return sum(run_seconds(record.wall_time_seconds, record.costs) for record in records) / 3600
