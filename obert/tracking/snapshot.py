"""A finished run's record and files as they were at one moment, though a rerun may replace them meanwhile."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from obert.foundation.files import emptied, file_hash
from obert.records.record import CURVES, FILE_NAME, MODEL, PREDICTIONS, TEACHER_LOGITS, Record, read_with_bytes

BESIDE = (CURVES, PREDICTIONS, TEACHER_LOGITS)  # what is mirrored besides the record, of every run that has it
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json")
PARTIAL = ".mirror.partial"


@dataclass(frozen=True)
class Snapshot:
    """A record, the bytes that it was read from, and a folder with the files that it is of.

    Attributes:
        folder: with those of `BESIDE` that there are; of an export also the ONNX file, and in `tokenizer` the tokenizer
            that the model was trained with.
    """

    record: Record
    content: bytes
    folder: Path


@contextmanager
def snapshot(folder: Path) -> Iterator[Snapshot]:
    """A snapshot of a run's folder, taken by one process at a time. Its files are links, gone when the block ends.

    A rerun removes the record before it replaces a file, and no two records have the same bytes (each says when its run
    started). So files that were taken between two looks at one record are that record's.

    Raises:
        RecordMissing: there is no record: the run has not been made, or is being made again.
        UserError: the record is damaged.
    """
    while True:
        record, content = read_with_bytes(folder / FILE_NAME)
        with emptied(folder / PARTIAL) as taken:
            _take(folder, record, taken)
            if read_with_bytes(folder / FILE_NAME)[1] == content:
                yield Snapshot(record, content, taken)
                return


def _take(folder: Path, record: Record, target: Path) -> None:
    for name in (*BESIDE, *(name for name in record.files if name.endswith(".onnx"))):
        _link(folder / name, target / name)
    if record.key.stage == "export" and record.inputs:
        source, digest = next(iter(record.inputs.items()))
        trained = folder.parents[len(record.key.path.parts) - 1] / source
        (target / "tokenizer").mkdir()
        for name in TOKENIZER:
            _link(trained / MODEL / name, target / "tokenizer" / name)
        if not _is(trained / FILE_NAME, digest):  # it has been trained again, or is at it
            shutil.rmtree(target / "tokenizer")


def _link(file: Path, target: Path) -> None:
    """Another name of a file, which keeps what it holds when the first is given to another; a copy where there is no
    linking. Nothing if there is no such file."""
    with suppress(FileNotFoundError):
        try:
            os.link(file, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(file, target)


def _is(file: Path, digest: str) -> bool:
    try:
        return file_hash(file) == digest
    except FileNotFoundError:
        return False
