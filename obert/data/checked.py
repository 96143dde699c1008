"""A source's rows checked and converted column by column, kept in a file that is mapped from the disk."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from obert.data.columns import Column, Identifier, Text
from obert.data.rows import BATCH, Rows
from obert.data.values import Mended, Unfit
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path, file_hash, json_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

CACHE = Path("results/cache/splits")
SHOWN = 5  # kinds of fault that one message names, and rows of a kind
WIDTH = 80  # characters of a value that a message shows
_CODE = tuple(Path(__file__).with_name(name) for name in ("checked.py", "columns.py", "rows.py", "values.py"))
log = logging.getLogger(__name__)


class _Index(Column):
    """GLUE's `idx`, by which an example is known where it has no `id`; it stays, as records' fingerprints cover it."""

    allowed: ClassVar[str] = "a whole number"

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        if type(value) is not int:
            raise Unfit("is not a whole number")
        return value

    def feature(self):
        from datasets import Value

        return Value("int64")


def checked(rows: Rows, columns: Mapping[str, Column], split: str) -> Dataset:
    """The columns of all rows, converted; made once for the same content and columns.

    Args:
        split: what ids begin with that are made from the place of a row.

    Raises:
        UserError: a column is missing, values are not allowed (all rows are read, and the faults counted), ids are not
            unique, or there are no rows.
    """
    from datasets import Dataset

    columns = _present(rows, columns)
    known = [rows.identity(), split, {name: repr(column) for name, column in columns.items()}]
    path = CACHE / f"{json_hash([*known, *map(file_hash, _CODE)])}.arrow"
    if not path.is_file():
        with atomic_path(path) as temporary:
            _write(temporary, rows, columns, split)
            _check_unique(temporary, rows, columns)
    return Dataset.from_file(str(path))


def shown(value: Any) -> str:
    """A value as a message shows it."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."


def _present(rows: Rows, columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, without those that may be missing and are, and with the one that ids come from."""
    found = rows.names()
    kept = {name: column for name, column in columns.items() if name in found or not column.optional}
    for name, column in columns.items():
        if isinstance(column, Identifier) and name not in found and "idx" in found:
            _, first = next(rows.read(["idx"]), (0, {}))
            is_whole = not isinstance(first, Unfit) and type(first.get("idx")) is int
            kept["idx"] = _Index() if is_whole else Text()
    return kept


def _features(columns: Mapping[str, Column]) -> Features:
    from datasets import Features

    return Features({name: column.feature() for name, column in columns.items()})


def _write(path: Path, rows: Rows, columns: Mapping[str, Column], split: str) -> None:
    import pyarrow as pa

    faults, mended, count = _Faults(rows, columns), Counter(), 0
    schema = _features(columns).arrow_schema
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        converted = _converted(rows, columns, split, faults, mended)
        while batch := list(islice(converted, BATCH)):
            count += len(batch)
            if not faults:  # else there is nothing to keep, and the rest is read to count
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    faults.raise_any(count)
    if not count:
        raise UserError(f"{rows.where} holds no rows")
    for (name, how), number in mended.items():
        log.warning("%s, column '%s': %s in %d of %d rows", rows.where, name, how, number, count)


def _converted(
    rows: Rows, columns: Mapping[str, Column], split: str, faults: _Faults, mended: Counter
) -> Iterator[dict[str, Any]]:
    """Rows converted; what is at fault in one is noted, and left out of it."""
    found = rows.names()
    made = {name for name, column in columns.items() if isinstance(column, Identifier) and name not in found}
    order = sorted((item for item in columns.items() if item[0] not in made), key=lambda item: bool(item[1].needs))
    for index, (number, row) in enumerate(rows.read([name for name in columns if name not in made])):
        given: dict[str, Any] = {}
        if isinstance(row, Unfit):
            faults.add(number, None, row, None)
            yield given
            continue
        for name, column in order:
            if name not in row:
                faults.add(number, name, _MISSING, None)
            elif all(needed in given for needed in column.needs):
                try:
                    value = column.convert(row[name], row)
                except Unfit as error:
                    faults.add(number, name, error, row[name])
                    continue
                if type(value) is Mended:
                    mended[name, value.how] += 1
                    value = value.value
                given[name] = value
        for name in made:
            given[name] = f"{split}-{given.get('idx', index)}"
        yield given


_MISSING = Unfit("is missing")


class _Faults:
    """Faults found so far, by column and kind: the first row's value, the first rows' numbers, how many there are."""

    def __init__(self, rows: Rows, columns: Mapping[str, Column]):
        self._rows, self._columns = rows, columns
        self._kinds: dict[tuple[str | None, str], tuple[Any, list[int]]] = {}
        self._counts: Counter[tuple[str | None, str]] = Counter()

    def __len__(self) -> int:
        return len(self._kinds)

    def add(self, number: int, name: str | None, error: Unfit, value: Any) -> None:
        kind = (name, str(error))
        _, numbers = self._kinds.setdefault(kind, (value, []))
        if len(numbers) < SHOWN:
            numbers.append(number)
        self._counts[kind] += 1

    def raise_any(self, count: int) -> None:
        """Raise UserError if there is a fault among the `count` rows that have been read."""
        if not self:
            return
        absent = sorted(name for (name, text), n in self._counts.items() if text == str(_MISSING) and n == count)
        if absent:
            names = ", ".join(self._rows.names())
            raise UserError(f"{self._rows.where} lacks column {', '.join(absent)}; found: {names}{self._hint()}")
        lines = [self._line(name, text) for name, text in list(self._kinds)[:SHOWN]]
        if len(self._kinds) > SHOWN:
            lines.append(f"... and {len(self._kinds) - SHOWN} further kinds of fault")
        raise UserError("\n".join(lines))

    def _line(self, name: str | None, text: str) -> str:
        value, numbers = self._kinds[name, text]
        unit, more = self._rows.unit, self._counts[name, text] - 1
        where = f"{self._rows.where}, {unit} {numbers[0]}"
        if name is None:
            line = f"{where}: {text}."
        else:
            what = text if text in ("is missing", "is null") else f"{shown(value)} {text}"
            line = f"{where}, column '{name}': {what}. Allowed: {self._columns[name].allowed}."
        if more:
            rest = ", ".join(map(str, numbers[1:])) + (", ..." if more >= SHOWN else "")
            line += f" {more} more row{'s have' if more > 1 else ' has'} it ({unit} {rest})."
        return line

    def _hint(self) -> str:
        header = self._rows.names()
        return ". Its values must be separated by commas." if len(header) == 1 and ";" in header[0] else ""


def _check_unique(path: Path, rows: Rows, columns: Mapping[str, Column]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_stream(file).read_all()
        for name, column in columns.items():
            if isinstance(column, Identifier) and pc.count_distinct(table[name]).as_py() < len(table):
                raise _repeated(table[name], name, rows)


def _repeated(ids: pa.ChunkedArray, name: str, rows: Rows) -> UserError:
    import pyarrow.compute as pc

    counts = pc.value_counts(ids).to_pylist()
    repeated: dict[str, list[int]] = {entry["values"]: [] for entry in counts if entry["counts"] > 1}
    for number, value in zip(rows.numbers(), ids.to_pylist(), strict=False):
        if value in repeated:
            repeated[value].append(number)
    first = [
        f"'{value}' ({rows.unit}s {', '.join(map(str, numbers[:SHOWN]))}{', ...' if len(numbers) > SHOWN else ''})"
        for value, numbers in list(repeated.items())[:SHOWN]
    ]
    more = f", and {len(repeated) - SHOWN} more ids" if len(repeated) > SHOWN else ""
    source = f"column '{name}'" if name in rows.names() else "column 'idx'"
    return UserError(f"{rows.where}, {source}: ids must be unique, and these are not: {'; '.join(first)}{more}")
