"""Files are whole or not there, whenever the process that writes them is killed, and nothing piles up."""

import os
import shutil

import pytest
from killing import changes, killed_before_change

from obert.foundation.files import STALE_SECONDS, atomic_path, drop_leftovers, partial_folder, write_text


def test_a_write_that_is_killed_anywhere_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "metrics.json"
    number = changes(lambda: write_text(path, "new"), tmp_path)
    assert number >= 2
    for moment in range(number):
        write_text(path, "old")
        assert killed_before_change(lambda: write_text(path, "new"), tmp_path, moment)
        assert path.read_text() in ("old", "new")
    write_text(path, "new")
    assert path.read_text() == "new"


def test_what_a_killed_process_has_left_goes_an_hour_later(tmp_path):
    path = tmp_path / "metrics.json"
    left, fresh, of_another = (tmp_path / f".{name}.tmp" for name in ("metrics.json.a", "metrics.json.b", "model.c"))
    for one in (left, fresh, of_another):
        one.touch()
        if one is not fresh:
            os.utime(one, (one.stat().st_atime, one.stat().st_mtime - STALE_SECONDS - 1))
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, fresh, of_another])


def test_a_folder_of_ones_own_is_cleaned_at_once(tmp_path):
    for name in (".model.onnx.a.tmp", ".lock", "model.onnx", "b.tmp"):
        (tmp_path / name).touch()
    drop_leftovers(tmp_path)
    drop_leftovers(tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "b.tmp", "model.onnx"]


def test_a_folder_that_is_made_by_killed_processes_is_begun_anew(tmp_path):
    target = tmp_path / "asset"

    def make():
        with partial_folder(target) as partial:
            (partial / "first").touch()
            (partial / "second").touch()
            partial.rename(target)

    number = changes(make, tmp_path)
    shutil.rmtree(target)
    for moment in range(number):
        shutil.rmtree(target, ignore_errors=True)
        assert killed_before_change(make, tmp_path, moment)
        assert not target.exists() or len(list(target.iterdir())) == 2
        assert len(list(tmp_path.iterdir())) <= 3  # with the lock and what is unfinished
    shutil.rmtree(target, ignore_errors=True)
    make()
    assert {path.name for path in tmp_path.iterdir()} == {"asset", ".asset.lock"}


def test_a_folder_that_fails_to_be_made_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), partial_folder(tmp_path / "asset") as partial:
        (partial / "first").touch()
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == [".asset.lock"]
