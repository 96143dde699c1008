"""The errors a user can act on: what was found, where, what is allowed, what to do."""

import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TextIO

from obert.foundation.passwords import masked


class UserError(Exception):
    """A mistake in input or environment. The command line prints it without a traceback and exits with status 2.

    Its message holds no passwords, whatever address or other library's words it was made of.
    """

    def __init__(self, message: str = ""):
        super().__init__(masked(message))


@contextmanager
def only_warns(result: str, mend: str) -> Iterator[None]:
    """A block that comes after a result is on the disk. Whatever ends it early is told in one line, and that is all.

    Were it an error, Snakemake would delete a model that took hours. So not even a library that calls `exit` makes one,
    nor the user's Ctrl-C.

    Args:
        result: what is complete, and what is not.
        mend: the command that does what the block did not.
    """
    try:
        yield
    except BaseException as error:
        logging.getLogger(__name__).debug("after the result:\n%s", masked(traceback.format_exc()))
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}".rstrip(": ")
        say(f"{result}: {masked(reason).rstrip('.')}. Later, `{mend}` does the rest.", sys.stderr)


def say(text: str, stream: TextIO) -> None:
    """Print what no job may fail for: the disk of its log may be full, or nobody may read it any more."""
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        # What is left of it would fail once more when the interpreter ends, and so would the job.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def unknown_name(what: str, name: str, allowed: Iterable[str], where: str = "") -> UserError:
    """Error for `name` that is not one of `allowed`, naming the closest one first.

    Args:
        what: what kind of name it is, e.g. "pruning method".
        where: file and key in which it was found, if there is one.
    """
    allowed = sorted(allowed)
    closest = get_close_matches(name, allowed, n=1, cutoff=0.4)
    hint = f" Did you mean '{closest[0]}'?" if closest else ""
    place = f" in {where}" if where else ""
    return UserError(f"unknown {what} '{name}'{place}.{hint} Allowed: {', '.join(allowed) or 'none'}.")
