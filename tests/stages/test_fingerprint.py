"""The data's fingerprint: what it has always been for plain columns, and whatever else a column holds."""

import datetime
import decimal
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from obert.experiment.plan import Plan
from obert.stages._trained import fingerprint


@pytest.mark.parametrize("task", ["movie_reviews", "city_qa", "mlm"])
def test_of_plain_columns_it_is_that_of_their_json(root, task):
    plan = Plan.load("configs/smoke.yaml")
    splits = next(run.task for run in plan if run.key.task == task).load()
    digest = hashlib.sha256()
    for name in ("train", "validation"):
        lines = [json.dumps(splits[name][i], sort_keys=True) + "\n" for i in range(len(splits[name]))]
        digest.update("".join(lines).encode() + b"\f")
    assert fingerprint(splits["train"], splits["validation"]) == digest.hexdigest()


UNUSUAL = {
    "timestamp": [datetime.datetime(2020, 1, day, tzinfo=datetime.UTC) for day in (1, 2)],
    "date": [datetime.date(2020, 1, day) for day in (1, 2)],
    "time": [datetime.time(1, minute) for minute in (1, 2)],
    "duration": [datetime.timedelta(seconds=1), datetime.timedelta(seconds=2)],
    "decimal": [decimal.Decimal("1.10"), decimal.Decimal("1.20")],
    "bytes": [b"\xff\x00", b"\xff\x01"],
    "nested": [{"at": [datetime.date(2020, 1, 1)]}, {"at": [datetime.date(2020, 1, 2)]}],
    "half": pa.array(np.array([1, 2], dtype=np.float16)),
    "not a number": [float("nan"), float("inf")],
    "null": [None, 1],
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_any_column_counts_with_its_values(name):
    column = UNUSUAL[name]
    first, second = (Dataset(pa.table({"id": ["a", "b"], name: values})) for values in (column, column[::-1]))
    assert fingerprint(first) == fingerprint(Dataset(pa.table({"id": ["a", "b"], name: column})))
    assert fingerprint(first) != fingerprint(second)


def test_the_examples_that_are_chosen_count_in_their_order():
    data = Dataset.from_dict({"id": ["a", "b", "c"]})
    assert fingerprint(data.select([2, 0])) == fingerprint(Dataset.from_dict({"id": ["c", "a"]}))
    assert fingerprint(data, data) != fingerprint(data.select([0, 1, 2, 0, 1, 2]))
