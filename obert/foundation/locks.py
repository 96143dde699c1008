"""One process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from obert.foundation.errors import UserError


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """A block that one process of this file system is in at a time. The system ends it if the process is killed.

    Args:
        path: an empty file of the lock's own, made if missing and left in its place. Never one with content: what
            replaces it, as an atomic write does, is another file, with a lock of its own.
        wait: for the block to be free.

    Raises:
        BlockingIOError: another process is in it, and there is no waiting.
        UserError: the lock cannot be taken, since its folder is read-only or the file system has no locks.
    """
    # Without `flock`, filelock would go on with a file that outlives a process that is killed.
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"another process holds {path}") from None
    except OSError as error:
        raise UserError(
            f"cannot lock {path}: {error.strerror or error}. Processes wait for one another by locks on files: put the "
            "project on a file system that is writable and has them (NFS: with its lock service)."
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a process is in the block of a lock.

    Raises:
        UserError: as `locked`.
    """
    if not path.exists():
        return False
    try:
        with locked(path, wait=False):
            return False
    except BlockingIOError:
        return True
