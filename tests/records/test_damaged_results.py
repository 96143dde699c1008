"""Records and checkpoints that something has damaged since: a message with the file, or passed over."""

import json
import math

import pytest
from tables.examples import record

from obert.foundation.errors import UserError
from obert.records.record import FILE_NAME, Score, read_record, read_records, write_record
from obert.training.checkpoints import latest_checkpoint, mark

NESTED = b"[" * 100_000


RECORDS = {
    "empty": b"",
    "not_utf8": b"\xff\xfe\x00",
    "utf16": '{"a": 1}'.encode("utf-16"),
    "zeros": b"\0" * 100,
    "deep": NESTED,
    "a_list": b"[]",
    "not_a_number": b"NaN",
    "of_tomorrow": b'{"schema_version": 2}',
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record(tmp_path, content):
    path = write_record(tmp_path, record("teacher", 90.0))
    path.write_bytes(content)
    for read in (lambda: read_record(path), lambda: read_records(tmp_path)):
        with pytest.raises(
            UserError, match=r"metrics\.json is not a valid record: .*Delete it and run the same command"
        ):
            read()


def test_a_record_that_is_a_folder(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(UserError, match=r"metrics\.json cannot be read: Is a directory"):
        read_record(tmp_path / FILE_NAME)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_read_as_it_was_written(tmp_path, value):
    made = record("teacher", 90.0).model_copy(
        update={
            "metrics": {"accuracy": Score(value=value, count=4)},
            "costs": {"training_seconds": value},
            "spec": {"task": {"x": value}},
            "details": {"events": [{"increase": value, "deep": [{"x": value}]}]},
            "data": {"x": value},
            "model": {"x": value},
        }
    )
    path = write_record(tmp_path, made)
    assert "null" not in path.read_text(encoding="utf-8").partition('"data"')[2].partition('"inputs"')[0]
    found = read_record(path)
    for there in (
        found.metrics["accuracy"].value, found.costs["training_seconds"], found.spec["task"]["x"], found.data["x"],
        found.model["x"], found.details["events"][0]["increase"], found.details["events"][0]["deep"][0]["x"],
    ):  # fmt: skip
        assert there == value or (math.isnan(there) and math.isnan(value))
    assert write_record(tmp_path / "again", found).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "marker", [b"", b"\xff", b"[]", b"{}", b'{"identity": "run"}', b'{"identity": "run", "files": []}', b"null", b"1"]
)
def test_a_checkpoint_with_a_damaged_marker_is_passed_over(tmp_path, marker, caplog):
    for step, content in ((5, None), (10, marker)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        mark(folder, "run")
        if content is not None:
            (folder / "complete.json").write_bytes(content)
    (tmp_path / "checkpoint-kept").mkdir()
    assert latest_checkpoint(tmp_path, "run") == tmp_path / "checkpoint-5"
    assert "checkpoint-10 is not used: its marker is damaged" in caplog.text
    assert json.loads((tmp_path / "checkpoint-5" / "complete.json").read_text())["identity"] == "run"
