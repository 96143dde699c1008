"""The tables that the repository holds: of which experiment they are, and whether this code made them."""

import warnings
from functools import cache

import pandas as pd
import pytest

from obert.experiment.plan import Plan
from obert.foundation.registry import PACKAGE

ROOT = PACKAGE.parent
TABLES = sorted(path for path in (ROOT / "results" / "tables").glob("*") if any(path.glob("*.csv")))
PROVENANCE = "provenance.csv"


@cache
def code_hashes(name):
    """What makes the runs of an experiment now, by stage, task and method."""
    runs = Plan.load(ROOT / "configs" / f"{name}.yaml")
    return {(run.key.stage, run.key.task, run.key.method or ""): run.code_hash for run in runs}


def older(name, made):
    """The rows of a table of provenance that other code made than is here now, in words."""
    now = code_hashes(name)
    rows = made.fillna("").itertuples()
    return [f"{r.stage} {r.task} {r.method}".strip() for r in rows if now[r.stage, r.task, r.method] != r.code_hash]


def read(path):
    return pd.read_csv(path, dtype={"code_hash": str, "commit": str})


@pytest.mark.parametrize("folder", TABLES, ids=lambda path: path.name)
def test_tables_are_of_an_experiment_and_it_is_said_which_are_older(folder):
    assert (ROOT / "configs" / f"{folder.name}.yaml").is_file(), "tables of an experiment that is not here"
    if not (folder / PROVENANCE).is_file():
        warnings.warn(f"results/tables/{folder.name} is older than tables of provenance", stacklevel=1)
        return
    made = read(folder / PROVENANCE)
    assert set(zip(made.stage, made.task, made.method.fillna(""), strict=True)) <= set(code_hashes(folder.name))
    if found := older(folder.name, made):
        warnings.warn(f"results/tables/{folder.name}: older code made {', '.join(dict.fromkeys(found))}", stacklevel=1)


def test_what_other_code_made_is_found():
    now = code_hashes("default")
    made = pd.DataFrame([(*key, code) for key, code in now.items()], columns=["stage", "task", "method", "code_hash"])
    assert older("default", made) == []
    made.loc[0, "code_hash"] = "0" * 16
    assert older("default", made) == [" ".join(next(iter(now))).strip()]
