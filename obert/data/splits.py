"""Training and validation data of a task, from a local folder or the Hugging Face Hub, mapped from the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obert.data.sources import resolve
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash

if TYPE_CHECKING:
    from datasets import Dataset

CACHE = Path("results/cache/splits")
SUFFIXES = (".jsonl", ".jsonl.zst", ".parquet")


def load_splits(
    source: str,
    columns: tuple[str, ...],
    hub_config: str | None = None,
    hold_out_every: int | None = None,
    validation: str = "validation",
) -> dict[str, Dataset]:
    """Splits `train` and `validation` of a data set, read without running code that comes with it.

    A local folder holds `<split>.jsonl`, `<split>.jsonl.zst` or `<split>.parquet`.

    Args:
        hub_config: the data set's configuration on the Hub.
        hold_out_every: where there is no `validation`, each so-many-th row of `train` is put into it.
        validation: the source's name of that split.

    Raises:
        UserError: missing folder, split or column; Hub unreachable.
    """
    location = resolve(source)
    local = isinstance(location, Path)
    is_whole = hold_out_every and not (_has_local if local else _has_hub)(location, validation, hub_config)
    splits = {}
    for split, name in (("train", "train"), ("validation", validation))[: 1 if is_whole else 2]:
        data = (_read_local if local else _read_hub)(location, name, hub_config)
        missing = sorted(set(columns) - set(data.column_names))
        if missing:
            found = ", ".join(data.column_names)
            raise UserError(f"split '{name}' of '{source}' lacks column {', '.join(missing)}; found: {found}")
        splits[split] = data
    if is_whole:
        rows = range(len(splits["train"]))
        held_out = splits["train"].select(range(0, len(rows), hold_out_every))
        splits["train"] = splits["train"].select(i for i in rows if i % hold_out_every)
        splits["validation"] = held_out
    return splits


def _local_file(folder: Path, split: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()), None)


def _has_local(folder: Path, split: str, _: str | None) -> bool:
    return _local_file(folder, split) is not None


def _read_local(folder: Path, split: str, _: str | None) -> Dataset:
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    path = _local_file(folder, split)
    if path is None:
        allowed = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        raise UserError(f"folder '{folder}' holds no split '{split}': one of {allowed} is expected in it")
    if path.suffix == ".parquet":
        return Dataset.from_parquet(str(path), cache_dir=str(CACHE))
    try:
        # The hash is for the cache, which knows a data set by its arguments.
        arguments = {"path": str(path), "sha256": file_hash(path)}
        return Dataset.from_generator(_lines, gen_kwargs=arguments, cache_dir=str(CACHE))
    except (DatasetGenerationError, ValueError) as error:
        raise UserError(f"{path} is not JSON lines: {error.__cause__ or error}") from None


def _lines(path: str, sha256: str) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines, values as they are: no text becomes a number or a date."""
    if path.endswith(".zst"):
        import zstandard

        with zstandard.open(path, "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)
    else:
        with Path(path).open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _has_hub(name: str, split: str, config: str | None) -> bool:
    from datasets import get_dataset_split_names

    try:
        return split in get_dataset_split_names(name, config)
    except (OSError, ValueError) as error:
        raise _unreachable(name, split, config, error) from None


def _read_hub(name: str, split: str, config: str | None) -> Dataset:
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except (OSError, ValueError) as error:  # ValueError: unknown configuration or split
        raise _unreachable(name, split, config, error) from None


def _unreachable(name: str, split: str, config: str | None, error: Exception) -> UserError:
    return UserError(
        f"data set '{name}' ({config or 'default'}, {split}) cannot be loaded from the Hugging Face Hub: {error}. "
        "Check the name and the network, or point 'source' to a local folder with <split>.jsonl files."
    )
