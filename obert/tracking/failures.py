"""What a store's failure means, and what to do: one message, whatever MLflow, its drivers or the network raise."""

import re
import sys
from http import HTTPStatus

from obert.foundation.errors import UserError
from obert.foundation.passwords import masked

ACCESS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
NO_MLFLOW = "What answers there is no MLflow, but a sign-in page or another program: check the address and its path"
BROKEN = "The server or a proxy before it failed: its log says why"
REMEDIES = {
    401: f"It wants to know who asks: set {ACCESS} in the environment",
    403: f"It does not let you: ask its owner for the right to, or set another's {ACCESS} in the environment",
    413: "A proxy before it takes no files of this size: raise its limit (nginx: client_max_body_size)",
    429: "It takes no more requests for now: try later",
}
# As MLflow, requests and urllib3 say them.
STATUS = re.compile(r"error code (\d{3})|too many (\d{3}) error responses|\b(\d{3}) (?:Client|Server) Error")


def explained(where: str, error: Exception, address: str) -> UserError:
    """The user's error for what a store raised.

    Args:
        where: what failed: the store, or the place where it keeps files.
        address: the store's, whose password must not be in the message.
    """
    text = str(error)
    said = (text.splitlines() or [""])[0][:300].rstrip(".")
    if isinstance(error, ImportError):
        return UserError(
            f"{where} needs a Python package that is not installed: {said}. Install it into {sys.prefix}, or let the "
            "MLflow server pass files on (mlflow server --artifacts-destination)"
        )
    status, words = _status(error, text), type(error).__name__ == "RestException"  # with the server's own words
    if status is not None and (not words or status in REMEDIES or status >= 500):
        remedy = REMEDIES.get(status, BROKEN if status >= 500 else NO_MLFLOW)
        answer = f"HTTP {status} ({_phrase(status)}{f', {said}' if words else ''})"
        return UserError(masked(f"{where} failed: {answer}. {remedy}", address))
    if "not in a valid JSON format" in text:
        return UserError(masked(f"{where} failed: the answer is not JSON. {NO_MLFLOW}", address))
    reason = said if type(error).__module__.startswith("mlflow") else f"{type(error).__name__}: {said}"
    return UserError(masked(f"{where} failed: {reason}. Is the server running and the URI right?", address))


def _status(error: Exception, text: str) -> int | None:
    """The HTTP status that an error is about, if it is about one."""
    if type(error).__name__ == "RestException":
        return error.get_http_status_code()
    response = getattr(error, "response", None)
    if isinstance(getattr(response, "status_code", None), int):
        return response.status_code
    found = STATUS.search(text)
    return int(next(filter(None, found.groups()))) if found else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # of a proxy's own
        return "unknown"
