"""Rows of a data file or of a data set of the Hub, one at a time, with their numbers as a user counts them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from obert.data.values import Unfit
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash

if TYPE_CHECKING:
    from datasets import Dataset, Features

BATCH = 1000  # rows of a columnar source that are in memory at a time
Row = dict[str, Any] | Unfit  # Unfit: what should be a row and is none


class Rows:
    """Rows of a source.

    Attributes:
        where: what the source is called in messages.
        unit: what its rows are numbered by, from 1: lines of a text file, else rows.
    """

    unit: ClassVar[str] = "row"

    def __init__(self, where: str):
        self.where = where

    def identity(self) -> str:
        """A hash that changes with the content."""
        raise NotImplementedError

    def names(self) -> Sequence[str]:
        """Columns, as the header says, or the first row where there is none."""
        raise NotImplementedError

    def classes(self, name: str) -> tuple[str, ...] | None:
        """Names of the classes that the source itself gives a column of whole numbers, if it does."""
        return None

    def numbers(self) -> Iterator[int]:
        """The rows' numbers, of a source without faults."""
        return count(1)

    def number(self, place: int) -> int:
        """A row's number by its place from 0, of a source without faults."""
        return next(islice(self.numbers(), place, None))

    def read(self, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """Numbers and rows, of the columns `names` at least.

        Raises:
            UserError: the source is damaged.
        """
        raise NotImplementedError


class _FileRows(Rows):
    def __init__(self, path: Path):
        super().__init__(str(path))
        self.path = path
        if not path.stat().st_size:
            raise UserError(f"{path} is empty: rows are expected in it")

    def identity(self) -> str:
        return file_hash(self.path)


class _TextRows(_FileRows):
    unit = "line"

    def numbers(self) -> Iterator[int]:
        return (number for number, _ in self.read(()))

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Numbers and lines with their ends, without a byte order mark. Raises UserError: not UTF-8, not zstandard."""
        import zstandard

        with self._open() as file:
            try:
                for number, line in enumerate(file, 1):
                    try:
                        yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                    except UnicodeDecodeError as error:
                        found = f"{line[error.start]:#04x} at byte {error.start + 1}"
                        raise UserError(
                            f"{self.where}, line {number}: not UTF-8 ({found}). Save the file as UTF-8 text."
                        ) from None
            except zstandard.ZstdError as error:
                raise UserError(f"{self.where} is damaged, or was not made by zstandard: {error}") from None

    def _open(self) -> IO[bytes]:
        if self.path.suffix != ".zst":
            return self.path.open("rb")
        import zstandard

        return io.BufferedReader(zstandard.open(self.path, "rb"))


class JsonRows(_TextRows):
    """JSON lines, plain or compressed, or one JSON array, which is held in memory whole."""

    def __init__(self, path: Path):
        super().__init__(path)
        first = next((text for _, text in self._lines() if not text.isspace()), "")
        self._is_array = first.lstrip().startswith("[")
        if self._is_array:
            self.unit = "row"

    def names(self) -> Sequence[str]:
        return next((list(row) for _, row in self.read(()) if isinstance(row, dict)), ())

    def read(self, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        if self._is_array:
            rows = self._array()
            yield from ((i, row if isinstance(row, dict) else _NO_OBJECT) for i, row in enumerate(rows, 1))
            return
        for number, line in self._lines():
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{self.where}, line {number}: not JSON ({error}). One JSON object a line is expected, "
                    f'such as {{"sentence": "a fine film", "label": 1}}.'
                ) from None
            yield number, row if isinstance(row, dict) else _NO_OBJECT

    def _array(self) -> list[Any]:
        try:
            return json.loads("".join(text for _, text in self._lines()))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.where} begins as a JSON array and is none ({error}). Expected: one JSON object a line, or an "
                "array of objects."
            ) from None


_NO_OBJECT = Unfit("is not a JSON object")


class DelimitedRows(_TextRows):
    """CSV or TSV with a header; a value that holds a separator, a quotation mark or a line's end stands in quotes."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._separator = "\t" if path.suffix == ".tsv" else ","

    def names(self) -> Sequence[str]:
        return self._header(self._values())

    def _header(self, values: Iterator[tuple[int, list[str]]]) -> list[str]:
        _, header = next(values, (0, []))
        if not header:
            raise UserError(f"{self.where} is empty: a header with the names of the columns is expected in it")
        return [name.strip() for name in header]

    def read(self, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        values = self._values()
        header = self._header(values)
        for name in names:
            if header.count(name) > 1:
                raise UserError(f"{self.where}, line 1: {header.count(name)} columns are called '{name}'; rename them")
        places = [(name, header.index(name)) for name in names if name in header]
        width = len(header)
        for number, row in values:
            if len(row) != width:
                yield (
                    number,
                    Unfit(
                        f"has {len(row)} values where the header has {width}: put a value that holds a separator or a "
                        "quotation mark in quotation marks, those inside doubled"
                    ),
                )
            else:
                yield number, {name: row[place] for name, place in places}

    def _values(self) -> Iterator[tuple[int, list[str]]]:
        """The number of a row's first line, and its values; blank lines are left out."""
        csv.field_size_limit(sys.maxsize)  # else 128 KiB, less than some documents
        reader = csv.reader((text for _, text in self._lines()), delimiter=self._separator, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                place = f"line {number}" if reader.line_num <= number else f"lines {number} to {reader.line_num}"
                raise UserError(
                    f"{self.where}, {place}: not a row of values ({error}). A quotation mark that opens a value must "
                    "close it; those inside are doubled."
                ) from None
            if row is None:
                return
            if row:
                yield number, row


class ParquetRows(_FileRows):
    """A Parquet file."""

    def __init__(self, path: Path):
        super().__init__(path)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path, memory_map=True)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet: {error}") from None

    def names(self) -> Sequence[str]:
        return self._schema.names

    def classes(self, name: str) -> tuple[str, ...] | None:
        import pyarrow as pa
        from datasets import Features

        schema = pa.schema([self._schema.field(name)], self._schema.metadata)
        try:
            return _classes(Features.from_arrow_schema(schema), name)
        except (ValueError, NotImplementedError):  # a type that the library does not know
            return None

    def read(self, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        import pyarrow as pa

        for name in names:
            if self._schema.names.count(name) > 1:
                raise UserError(f"{self.where}: several columns are called '{name}'; rename them")
        try:
            batches = self._file.iter_batches(BATCH, columns=list(names))
            yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.where} cannot be read as Parquet: {error}") from None


class HubRows(Rows):
    """A split of a data set from the Hub."""

    def __init__(self, where: str, data: Dataset):
        super().__init__(where)
        self._data = data

    def identity(self) -> str:
        return self._data._fingerprint

    def names(self) -> Sequence[str]:
        return self._data.column_names

    def classes(self, name: str) -> tuple[str, ...] | None:
        return _classes(self._data.features, name)

    def read(self, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        chosen = self._data.select_columns([name for name in names if name in self._data.column_names])
        batches = chosen.with_format("arrow").iter(BATCH)
        yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1)


def _classes(features: Features, name: str) -> tuple[str, ...] | None:
    feature = features.get(name)
    feature = getattr(feature, "feature", feature)  # of a list
    names = getattr(feature, "names", None)
    return tuple(names) if names else None


READERS = {
    ".jsonl": JsonRows,
    ".jsonl.zst": JsonRows,
    ".json": JsonRows,
    ".csv": DelimitedRows,
    ".tsv": DelimitedRows,
    ".parquet": ParquetRows,
}


def suffix_of(path: Path) -> str | None:
    """The end of a file's name by which it is known how to read it, or None."""
    return next((suffix for suffix in READERS if path.name.endswith(suffix)), None)


def rows_of(path: Path) -> Rows:
    """Rows of a file.

    Raises:
        UserError: it is empty or damaged, or of a format that is not read.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise UserError(f"{path} is of no format that is read: its name must end in one of {', '.join(READERS)}")
    return READERS[suffix](path)
