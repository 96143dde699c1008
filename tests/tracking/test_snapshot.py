"""A snapshot has the files of its record, whenever a rerun comes in between."""

import pytest
from tables.examples import record, write_run

from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME, RecordMissing, write_record
from obert.tracking import snapshot as module
from obert.tracking.snapshot import snapshot


def attempt(runs, number):
    """What a stage does: the old record goes, the files are replaced, and the new record comes last."""
    made = record("teacher", float(number), wall_time_seconds=float(number))
    (runs / made.key.path / FILE_NAME).unlink(missing_ok=True)
    return write_run(runs, made, scores={"a": float(number)}, steps=number)


def contents(taken):
    return {file.name: file.read_bytes() for file in taken.folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    return attempt(tmp_path, 1)


def test_it_is_not_changed_by_a_rerun_and_leaves_nothing(folder, tmp_path):
    before = set(folder.iterdir())
    with snapshot(folder) as taken:
        found = contents(taken)
        attempt(tmp_path, 2)
        assert contents(taken) == found
        assert taken.record.wall_time_seconds == 1.0
        assert found["curves.csv"].count(b"\n") == 2
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_rerun_while_it_is_taken_makes_it_that_of_the_rerun(folder, tmp_path, monkeypatch, first):
    take, reruns = module._take, [2]

    def take_beside_a_rerun(*arguments):
        steps = [lambda: take(*arguments), lambda: reruns and attempt(tmp_path, reruns.pop())]
        for step in reversed(steps) if first else steps:
            step()

    monkeypatch.setattr(module, "_take", take_beside_a_rerun)
    with snapshot(folder) as taken:
        assert taken.record.wall_time_seconds == 2.0
        assert contents(taken)["curves.csv"].count(b"\n") == 3
        assert b"2.0" in contents(taken)["predictions.jsonl"]


def test_a_rerun_that_has_not_ended_is_told_as_a_missing_record(folder, monkeypatch):
    take = module._take

    def begin_a_rerun(*arguments):
        (folder / FILE_NAME).unlink()
        take(*arguments)

    monkeypatch.setattr(module, "_take", begin_a_rerun)
    with pytest.raises(RecordMissing, match="is missing"), snapshot(folder):
        pass
    assert not list(folder.glob(".mirror.*"))


def test_files_are_copied_where_there_is_no_linking(folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    with snapshot(folder) as taken:
        found = contents(taken)
        assert found == {name: (folder / name).read_bytes() for name in ("curves.csv", "predictions.jsonl")}
        attempt(tmp_path, 2)
        assert contents(taken) == found


def test_a_tokenizer_of_a_model_that_is_trained_again_is_left_out(tmp_path):
    teacher = write_record(tmp_path / "teacher/movie_reviews/dense/dense/seed0", record("teacher", 90.0))
    (teacher.parent / "model").mkdir()
    (teacher.parent / "model" / "tokenizer.json").write_text("{}")
    source = teacher.parent.relative_to(tmp_path).as_posix()
    exported = write_run(tmp_path, record("export", inputs={source: file_hash(teacher)}, files=("model.onnx",)))
    (exported / "model.onnx").write_bytes(b"model")
    with snapshot(exported) as taken:
        assert (taken.folder / "model.onnx").read_bytes() == b"model"
        assert [file.name for file in taken.folder.glob("tokenizer/*")] == ["tokenizer.json"]
    teacher.unlink()
    with snapshot(exported) as taken:
        assert {file.name for file in taken.folder.iterdir()} == {"model.onnx"}
