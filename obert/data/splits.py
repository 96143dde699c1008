"""Training and validation data of a task: from a folder, a file or the Hub, checked, and mapped from the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from obert.data.checked import checked
from obert.data.columns import Column, Label
from obert.data.labels import Part, number_labels, with_numbers
from obert.data.rows import BATCH, READERS, HubRows, Rows, rows_of
from obert.data.sources import resolve
from obert.foundation.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

HELD_OUT = 0.1  # of a source that is one file, the part that is for validation


def load_splits(
    source: str,
    columns: Mapping[str, Column],
    hub_config: str | None = None,
    hold_out_every: int | None = None,
    validation: str = "validation",
    together: Sequence[str] = (),
    train: str = "train",
) -> dict[str, Dataset]:
    """Splits `train` and `validation` of a data set, read without running code that comes with it.

    A local folder holds `<split>` and one of the suffixes of `obert.data.rows.READERS`. One file of such a format is
    divided: a tenth of its examples is for validation, those that a hash of their text decides.

    Args:
        columns: what is read, by the source's names, and nothing else. A `Label` becomes a `ClassLabel`; an
            `Identifier` is made where the source has none.
        hub_config: the data set's configuration on the Hub, unless the source is `<name>:<configuration>`.
        hold_out_every: where there is no `validation`, each so-many-th row of `train` is put into it.
        validation: the source's name of that split.
        together: columns whose values decide about a row where one file is divided; by default all text.
        train: the source's name of the training split.

    Raises:
        UserError: the source, a split or a column is missing, or a value is not allowed; Hub unreachable.
    """
    location, hub_config = _located(source, hub_config)
    names = {"train": train, "validation": validation}
    is_whole = isinstance(location, Path) and location.is_file()
    if hold_out_every and not is_whole:
        is_whole = not (_has_local if isinstance(location, Path) else _has_hub)(location, validation, hub_config)
    parts = {}
    for split in ("train",) if is_whole else names:
        rows = _rows(location, names[split], hub_config)
        parts[split] = Part(rows, checked(rows, columns, split))
    if is_whole:
        whole = parts["train"]
        if hold_out_every:
            held_out = set(range(0, len(whole.data), hold_out_every))
        else:
            held_out = _held_out(whole, together or [name for name, column in columns.items() if column.is_text])
        chosen = {"train": [i for i in range(len(whole.data)) if i not in held_out], "validation": sorted(held_out)}
        parts = {split: Part(whole.rows, whole.data, places) for split, places in chosen.items()}
    return _divided(parts, columns)


def has_split(source: str, split: str, hub_config: str | None = None) -> bool:
    """Whether a source has a split of that name; one file has none. Raises UserError as `load_splits`."""
    location, hub_config = _located(source, hub_config)
    if not isinstance(location, Path):
        return _has_hub(location, split, hub_config)
    return location.is_dir() and _has_local(location, split, None)


def without_shared(splits: dict[str, Dataset], units: Callable[[Dataset], Iterable[str]]) -> dict[str, Dataset]:
    """The splits without the training examples that are in validation too.

    Args:
        units: what each example is known by.

    Raises:
        UserError: nothing is left to train on.
    """
    held_out = set(units(splits["validation"]))
    kept = [place for place, unit in enumerate(units(splits["train"])) if unit not in held_out]
    if not kept:
        raise UserError(
            f"nothing is left to train on: all {len(splits['train'])} training examples are in the validation split too"
        )
    return {**splits, "train": splits["train"].select(kept)}


def check_classes(train: Dataset, where: str) -> None:
    """Raise UserError if all examples are of one class, where there are classes.

    Args:
        where: task and source, for the message.
    """
    from datasets import ClassLabel

    for name, feature in train.features.items():
        if isinstance(feature, ClassLabel) and len(found := train.unique(name)) < 2:
            raise UserError(
                f"{where}: at least two classes are needed, and the {len(train)} training examples that are left all "
                f"have {name} {feature.int2str(found)[0]}. Raise train_examples, or add examples of another class."
            )


def _divided(parts: dict[str, Part], columns: Mapping[str, Column]) -> dict[str, Dataset]:
    """The splits, with the numbers of classes for labels."""
    data = {split: part.data for split, part in parts.items()}
    for name, column in columns.items():
        if isinstance(column, Label) and name in data["train"].column_names:
            names, numbers = number_labels(parts, name, column)
            data = {split: with_numbers(found, name, names, numbers) for split, found in data.items()}
    return {
        split: found if parts[split].places is None else found.select(parts[split].places)
        for split, found in data.items()
    }


def _held_out(whole: Part, names: Sequence[str]) -> set[int]:
    """Places of the rows with the lowest hashes; rows with the same values in these columns stay together."""
    hashes = list(_hashes(whole.data, names))
    distinct = sorted(set(hashes))
    if len(distinct) < 2:
        raise UserError(
            f"{whole.rows.where} holds {len(distinct)} example{'s'[: len(distinct) != 1]} that differ in "
            f"{', '.join(names)}: too few to hold some out for validation"
        )
    limit = distinct[max(1, round(HELD_OUT * len(distinct))) - 1]
    return {place for place, found in enumerate(hashes) if found <= limit}


def _hashes(data: Dataset, names: Sequence[str]) -> Iterator[int]:
    for batch in data.select_columns(list(names)).iter(BATCH):
        for values in zip(*(batch[name] for name in names), strict=True):
            digest = hashlib.sha256(f"validation|{values}".encode()).digest()
            yield int.from_bytes(digest[:8], "big")


def _located(source: str, config: str | None) -> tuple[str | Path, str | None]:
    """Where a source is, and the configuration of one on the Hub."""
    location = resolve(source)
    if isinstance(location, Path):
        return location, None
    name, _, named = location.partition(":")
    return name, named or config


def _rows(location: str | Path, split: str, config: str | None) -> Rows:
    if not isinstance(location, Path):
        return HubRows(f"split '{split}' of '{location}'", _read_hub(location, split, config))
    path = location if location.is_file() else _local_file(location, split)
    if path is None:
        allowed = ", ".join(f"{split}{suffix}" for suffix in READERS)
        raise UserError(
            f"folder '{location}' holds no split '{split}': one of {allowed} is expected in it. Where all data is in "
            "one file, name that file: a tenth of it is then held out for validation."
        )
    return rows_of(path)


def _local_file(folder: Path, split: str) -> Path | None:
    found = [path for suffix in READERS if (path := folder / f"{split}{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(f"folder '{folder}' holds split '{split}' more than once: {', '.join(p.name for p in found)}")
    return found[0] if found else None


def _has_local(folder: Path, split: str, _: str | None) -> bool:
    return _local_file(folder, split) is not None


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
