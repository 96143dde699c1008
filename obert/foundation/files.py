"""Files that are written whole or not at all, and hashes of what they hold."""

import hashlib
import json
import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError
from obert.foundation.locks import locked

STALE_SECONDS = 3600  # after which what stands in for a file is no longer being written: its process was killed


@contextmanager
def atomic_path(path: Path):
    """A temporary path beside `path` that takes its place when the block ends well, and is removed otherwise.

    What a killed process has left goes an hour later, when the file is written again: another may be writing it now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = f".{path.name[:100]}."
    drop_leftovers(path.parent, begin, time.time() - STALE_SECONDS)
    unique = uuid.uuid4().hex  # hosts of one file system share thread numbers
    temporary = path.with_name(f"{begin}{unique}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def drop_leftovers(folder: Path, begin: str = ".", before: float = math.inf) -> None:
    """Delete what killed processes have left of files that they were writing in a folder.

    Args:
        begin: of the names of what is deleted.
        before: Unix time of its last change; at any time by default, for a folder that this process alone writes in.
    """
    for left in folder.glob(".*.tmp"):
        if left.name.startswith(begin):
            with suppress(FileNotFoundError):  # another process was first
                if left.stat().st_mtime < before:
                    left.unlink()


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, in which one process at a time makes what is then moved to `path` whole.

    It is removed when the block ends. What a killed process has left in it is removed first, so that nothing piles up.

    Raises:
        UserError: the file system has no locks.
    """
    with locked(path.with_name(f".{path.name}.lock")), emptied(path.with_name(f".{path.name}.partial")) as partial:
        yield partial


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """An empty folder, removed when the block ends. Its user holds a lock, so what lies in it is a killed process's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_folder(folder: Path, where: str) -> None:
    """Raise UserError if nothing can be made in a folder: to be known before it takes long to have something to write.

    Nothing is left behind. Neither the folder nor those on the way to it need be there.

    Args:
        where: how a message names what gave the path.
    """
    try:
        above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise _not_written(folder, where, str(error.strerror)) from None


def check_place(path: Path, where: str) -> None:
    """Raise UserError if a file cannot be written there, as `check_folder`."""
    if path.is_dir():
        raise _not_written(path, where, "it is a folder")
    check_folder(path.parent, where)


def _not_written(path: Path, where: str, problem: str) -> UserError:
    return UserError(f"{where}: {path} cannot be written ({problem}). Give another place, or make this one writable")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(content: bytes) -> str:
    """sha256 of a file's content that has been read already."""
    return hashlib.sha256(content).hexdigest()


def plain(value: Any) -> Any:
    """What stands in JSON for a value that JSON has no form for: numbers for numpy's, hexadecimal digits for bytes, for
    all else its text. To be the `default` of `json.dumps`, which then fails at no value."""
    if isinstance(value, bytes):
        return value.hex()
    return value.tolist() if hasattr(value, "tolist") else str(value)


def json_hash(content: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return content_hash(json.dumps(content, sort_keys=True).encode())
