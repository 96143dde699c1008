"""The errors a user can act on: what was found, where, what is allowed, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in input or environment. The command line prints it without a traceback and exits with status 2."""


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
