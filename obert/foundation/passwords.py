"""Passwords are never printed: not those in addresses that a user gives, nor in what other libraries say of them."""

import logging
import re
import sys
import traceback
from types import TracebackType
from urllib.parse import unquote

MASK = "***"
# A password may hold what an address may not: all up to the last @ of a word is taken for one. Better too much than too
# little. A user's name without a password is a token where the address is a web server's.
_PARTS = (
    (re.compile(r"(?<=://)([^\s/:@]*):\S+@"), rf"\1:{MASK}@"),
    (re.compile(r"(https?://)[^\s/:@]+@"), rf"\1{MASK}@"),
    (
        re.compile(
            r"((?:\b|[_-])(?:password|passwd|pwd|passphrase|token|secret|sig|signature|access_?key|api_?key)=)"
            r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\"]+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)


def masked(text: str, address: str = "") -> str:
    """`text` without the passwords of the addresses in it: `user:***@host`, `?token=***`.

    Args:
        address: what the text is about. Its password is masked wherever the text has it, quoted or not.
    """
    password = password_of(address)
    for secret in {password, unquote(password)} - {""}:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    for pattern, instead in _PARTS:
        text = pattern.sub(instead, text)
    return text


def password_of(address: str) -> str:
    """The password in an address, as it is written there; empty without one."""
    found = re.search(r"://[^\s/:@]*:(\S+)@", address)
    return found[1] if found else ""


def mask_unforeseen() -> None:
    """Mask passwords in what this process prints of errors that nobody handles, and in what libraries log."""
    sys.excepthook = _print_masked
    mask_logs()


def mask_logs(name: str = "") -> None:
    """Mask passwords in what the handlers of a logger write, by default those of all without their own."""
    for handler in (*logging.getLogger(name).handlers, logging.lastResort):
        if handler is not None and _mask_record not in handler.filters:
            handler.addFilter(_mask_record)


def _mask_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = masked(record.getMessage()), None
    if record.exc_info:
        record.exc_text, record.exc_info = masked(logging.Formatter().formatException(record.exc_info)), None
    return True


def _print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(masked("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
