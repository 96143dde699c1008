"""What a configuration's `source` stands for: an asset, a folder, a file of data, or a Hub name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from obert.data.rows import suffix_of
from obert.data.wheels import ASSETS, FOLDER, PREFIX, find_asset, is_fetched
from obert.foundation.errors import UserError

_LOCAL_ROOTS = ("data", "results", "tests")


def assets_of(sources: Iterable[str]) -> tuple[str, ...]:
    """Names of the assets among some sources, sorted. Raises UserError if one of them is unknown."""
    names = {source.removeprefix(PREFIX) for source in sources if source.startswith(PREFIX)}
    for name in names:
        find_asset(name)
    return tuple(sorted(names))


def resolve(source: str) -> str | Path:
    """Folder of an asset, a local folder or file, else `source` itself, a Hub name.

    Raises:
        UserError: an asset that is unknown or not fetched, or what looks like a path but does not exist.
    """
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX)
        find_asset(name)
        if not is_fetched(name):
            raise UserError(
                f"source '{source}' has not been fetched to {FOLDER / name}: run "
                "`python -m obert assets --config configs/<experiment>.yaml` first"
            )
        return FOLDER / name
    path = Path(source).expanduser()
    if path.exists():
        return path
    first, *rest = source.split("/")
    is_path = first in ("", ".", "..") or first.startswith("~") or len(rest) > 1 or suffix_of(path) is not None
    if is_path or (rest and (first in _LOCAL_ROOTS or Path(first).is_dir())):
        raise UserError(
            f"missing local data: there is no folder '{source}' below {Path.cwd()}, nor a file. Allowed sources: an "
            f"existing folder or file of data, {', '.join(PREFIX + name for name in ASSETS)}, or a Hugging Face Hub "
            "name <owner>/<name>."
        )
    return source


def resolve_model(source: str) -> str | Path:
    """Where a model is loaded from: a folder, or a Hugging Face Hub name as it is.

    Raises:
        UserError: an asset that is unknown or not fetched, a folder that is missing or holds no model.
    """
    location = resolve(source)
    if isinstance(location, Path) and not (location / "config.json").is_file():
        raise UserError(f"folder '{source}' holds no model: config.json and model.safetensors are expected in it")
    return location


def asset_file(source: str, file_name: str) -> Path | None:
    """A file of the asset or folder that `source` names, or None if it is not in there (or `source` is a Hub name).

    Raises:
        UserError: as `resolve_model`.
    """
    location = resolve(source)
    path = location / file_name if isinstance(location, Path) else None
    return path if path is not None and path.is_file() else None
