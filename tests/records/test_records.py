"""Records: atomic, self-checking, and never averaged across specifications."""

import pytest

from obert.experiment.keys import RunKey
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.records.record import Record, Score, now, read_record, read_records, write_record

KEY = RunKey("downstream", "movie_reviews", "gradual", 0, "obert", 0.9)


def record(**changes) -> Record:
    fields = {
        "experiment": "e",
        "key": KEY,
        "spec": {"a": 1},
        "spec_hash": "1" * 64,
        "code_hash": "c",
        "environment": {},
        "threads": 1,
        "metrics": {"accuracy": Score(value=81.25, count=16)},
        "started_at": now(),
        "wall_time_seconds": 1.5,
        "peak_memory_mb": 100.0,
    }
    return Record(**fields | changes)


def test_record_survives_writing_and_reading(tmp_path):
    written = record()
    assert read_record(write_record(tmp_path, written)) == written


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage", [lambda t: t[: len(t) // 2], lambda t: t.replace('"status"', '"stato"'), lambda t: ""]
)
def test_damaged_record_raises_an_error_with_the_file_and_the_remedy(tmp_path, damage):
    path = write_record(tmp_path, record())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"metrics\.json is not a valid record.*Delete it and run"):
        read_record(path)


def test_missing_record_raises_an_error_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="is missing: run the stage that makes it first"):
        read_record(tmp_path / "metrics.json")


def test_two_records_of_one_key_with_different_specifications_are_refused(tmp_path):
    write_record(tmp_path / "a", record())
    write_record(tmp_path / "b", record(spec_hash="2" * 64))
    with pytest.raises(UserError, match="different specifications"):
        read_records(tmp_path)


def test_read_records_sorts_by_key(tmp_path):
    for seed in (1, 0):
        write_record(tmp_path / str(seed), record(key=RunKey("teacher", "movie_reviews", "finetune", seed)))
    assert [r.key.seed for r in read_records(tmp_path)] == [0, 1]
