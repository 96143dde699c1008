"""What a disk that takes nothing more looks like, whichever library tells of it."""

import errno
import os
from collections.abc import Iterator

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "a file is too large"}
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# Where torch writes, its streams say no more than that they failed; then it says "unexpected pos", or so, on top.
WORDS = {
    **{os.strerror(code): told for code, told in FULL.items()},
    "iostream error": "a file could not be written, as when the disk is full",
    "PytorchStreamWriter failed": "a file could not be written, as when the disk is full",
    "database or disk is full": "the disk is full",
}


def refusal(error: BaseException) -> str | None:
    """What to tell the user if an error, or one behind it, comes from a disk that is full or read-only; else None."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in REFUSED:
            return f"{each.filename}: {each.strerror}. Make it readable and writable, or give another place"
        found = FULL.get(each.errno) if isinstance(each, OSError) else None
        found = found or next((told for words, told in WORDS.items() if words in str(each)), None)
        if found:
            return (
                f"{found}: {each}. Free some space and run the same command again; finished runs and complete "
                "checkpoints are kept"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or in the handling of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
