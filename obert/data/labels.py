"""Labels of a data set's splits made numbers of classes, which have names."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from obert.data.checked import shown
from obert.data.columns import Label
from obert.data.rows import Rows
from obert.foundation.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_WHOLE = re.compile(r"-?\d+")
log = logging.getLogger(__name__)


class _Refused(Exception):
    """Labels of a split that cannot be classes, and why."""

    def __init__(self, split: str, labels: Iterable[str], why: str):
        super().__init__(why)
        self.split, self.labels = split, set(labels)


@dataclass(frozen=True)
class Part:
    """The rows of a split: those of a source, or some of them by their places from 0."""

    rows: Rows
    data: Dataset
    places: list[int] | None = None

    def column(self, name: str) -> pa.ChunkedArray:
        """A column's labels, without their lists where the column holds lists."""
        import pyarrow.compute as pc

        found = self.data.data.table[name]
        if self.places is not None:
            found = found.take(self.places)
        return pc.list_flatten(found) if _is_list(found) else found


def number_labels(parts: dict[str, Part], name: str, column: Label) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the classes of a column, and the number of the class that each label of the data stands for.

    Words are sorted, unless the task or the source gives them an order. Whole numbers are those of the classes; where
    they are not 0, 1, ... without a gap they are numbered anew, with a warning.

    Raises:
        UserError: labels are hidden or out of range, of validation only, of mixed kinds, or all the same.
    """
    import pyarrow.compute as pc

    counts = {
        split: {entry["values"]: entry["counts"] for entry in pc.value_counts(part.column(name)).to_pylist()}
        for split, part in parts.items()
    }
    given = {split: part.rows.classes(name) for split, part in parts.items()}
    where = parts["train"].rows.where
    if len(set(given.values())) > 1:
        raise UserError(f"column '{name}': the splits name their classes differently: {given}")
    try:
        names, numbers, said = _decide(counts, given["train"], column.classes)
    except _Refused as refused:
        raise _located(refused, parts[refused.split], name, counts[refused.split]) from None
    if len({numbers[label] for label in counts["train"]}) < 2:
        only = shown(next(iter(counts["train"])))
        raise UserError(f"{where}, column '{name}': at least two classes are needed, and all rows have {only}")
    if said:
        pairs = ", ".join(f"{label} is class {numbers[label]}" for label in sorted(numbers, key=numbers.get))
        log.warning("%s, column '%s': %s: %s", where, name, said, pairs)
    return names, numbers


def _decide(
    counts: dict[str, dict[str, int]], given: tuple[str, ...] | None, stated: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, int], str]:
    """Names of the classes, the class of each label, and what must be said of it."""
    for split, labels in counts.items():
        if negative := {label for label in labels if label.startswith("-") and _is_whole(label)}:
            raise _Refused(
                split,
                negative,
                "is no class: -1 stands for a hidden label, -100 for one that is left out. Allowed: classes from 0, or "
                "words; leave such rows out, or name a split with labels",
            )
    labels, said = set(counts["train"]), ""
    if given is not None:
        if stated is not None and set(given) == set(stated):
            names, numbers = stated, {**_by_number(given, stated.index), **_by_name(stated)}
        elif stated is not None and len(given) != len(stated):
            raise _Refused(
                "train", labels, f"is of {len(given)} classes; the task has {len(stated)}: {_listed(stated)}"
            )
        else:
            names, numbers = given, _numbers(given, labels)
    elif stated is not None:
        names, numbers = stated, _numbers(stated, labels)
        if _are_own(labels, stated):
            names = tuple(_sorted(labels))
            numbers, said = _by_name(names), f"labels are not the task's own ({_listed(stated)}), and are numbered anew"
    else:
        if not _is_of_a_kind(labels):
            words = {label for label in labels if not _is_whole(label)}
            raise _Refused(
                "train", words, "is a word, and other labels are whole numbers. Allowed: words only, or numbers only"
            )
        names = tuple(_sorted(labels))
        numbers = _by_name(names)
        if all(map(_is_whole, names)) and names != tuple(map(str, range(len(names)))):
            said = "labels are not 0, 1, ... without a gap, and are numbered anew"
    known = "the training data" if given is None and stated is None else "the task"
    for split, found in counts.items():
        if unknown := set(found) - set(numbers):
            raise _Refused(split, unknown, f"is no class of {known}. Allowed: {_allowed(names, numbers)}")
    trained = {numbers[label] for label in labels}
    if unseen := {label for label in counts.get("validation", ()) if numbers[label] not in trained}:
        raise _Refused("validation", unseen, "is a class that no training example has")
    return names, numbers, said


def _numbers(names: tuple[str, ...], labels: set[str]) -> dict[str, int]:
    """Classes by name; by number too, where that is no name of another."""
    if any(map(_is_whole, names)):
        return _by_name(names) if labels <= set(names) else _by_number(names, names.index)
    return {**_by_number(names, names.index), **_by_name(names)}


def _by_name(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _by_number(names: tuple[str, ...], number_of_name) -> dict[str, int]:
    return {str(index): number_of_name(name) for index, name in enumerate(names)}


def _is_whole(label: str) -> bool:
    return _WHOLE.fullmatch(label) is not None


def _is_of_a_kind(labels: set[str]) -> bool:
    return len(set(map(_is_whole, labels))) < 2


def _are_own(labels: set[str], names: tuple[str, ...]) -> bool:
    """Whether labels are as many other words as a task has names for its classes, or 1, 2, ... instead of 0, 1, ..."""
    if all(map(_is_whole, labels)):
        return labels == {str(number + 1) for number in range(len(names))} != set(names)
    return len(labels) == len(names) and not labels & set(names) and not any(map(_is_whole, labels))


def _sorted(labels: set[str]) -> list[str]:
    return sorted(labels, key=int) if all(map(_is_whole, labels)) else sorted(labels)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _allowed(names: tuple[str, ...], numbers: dict[str, int]) -> str:
    by_number = names != tuple(map(str, range(len(names)))) and "0" in numbers and "0" not in names
    return _listed(names) + (f", or 0 to {len(names) - 1}" if by_number else "")


def _located(refused: _Refused, part: Part, name: str, counts: dict[str, int]) -> UserError:
    """The message, with the first row that has such a label."""
    places = range(len(part.data)) if part.places is None else part.places
    values = part.data[name]
    for place in places:
        value = values[place]
        label = next(
            (entry for entry in (value if isinstance(value, list) else [value]) if entry in refused.labels), None
        )
        if label is not None:
            break
    more = sum(counts[label] for label in refused.labels) - 1
    also = f". {more} more label{'s are' if more > 1 else ' is'} so" if more else ""
    where = f"{part.rows.where}, {part.rows.unit} {part.rows.number(place)}, column '{name}'"
    return UserError(f"{where}: '{label}' {refused}{also}.")


def _is_list(column: pa.ChunkedArray) -> bool:
    import pyarrow.types as types

    return types.is_list(column.type) or types.is_large_list(column.type)


def with_numbers(data: Dataset, name: str, names: tuple[str, ...], numbers: dict[str, int]) -> Dataset:
    """The data with a column's labels replaced by numbers of classes, as a `ClassLabel`, or a list of them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import ClassLabel, List

    table = data.data.table[name]
    column = table.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    values = column.flatten() if _is_list(table) else column
    places = pc.index_in(values, value_set=pa.array(list(numbers), pa.string()))
    classes = pc.take(pa.array(list(numbers.values()), pa.int64()), places)
    feature = ClassLabel(names=list(names))
    if _is_list(table):
        classes, feature = pa.ListArray.from_arrays(column.offsets, classes), List(feature)
    order, numbered = data.column_names, f"{name} in numbers"
    data = data.add_column(numbered, classes, feature=feature).remove_columns(name)
    return data.rename_column(numbered, name).select_columns(order)
