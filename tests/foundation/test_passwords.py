"""Passwords in addresses, and in what others say of them."""

import logging
import subprocess
import sys

import pytest

from obert.foundation.errors import UserError, only_warns
from obert.foundation.passwords import masked

SECRET = "pa55w0rd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql+psycopg://me:{SECRET}@db/x?sslmode=require", "postgresql+psycopg://me:***@db/x?sslmode=require"),
        (
            f"http://me:{SECRET}@host:5000/api failed, http://host:1/y",
            "http://me:***@host:5000/api failed, http://host:1/y",
        ),
        (f"http://me:a@b/{SECRET}@host/", "http://me:***@host/"),
        (f"https://{SECRET}@host/x", "https://***@host/x"),
        (f"https://blob/x?sv=1&sig={SECRET}&se=2", "https://blob/x?sv=1&sig=***&se=2"),
        (f"s3://bucket?X-Amz-Signature={SECRET}", "s3://bucket?X-Amz-Signature=***"),
        (f"host=db user=me password={SECRET} failed", "host=db user=me password=*** failed"),
        (f"password='{SECRET} and more' user=me", "password=*** user=me"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert masked(text) == shown


def test_the_password_of_a_known_address_is_masked_wherever_it_is_said():
    said = "cannot use 'pa%35%35w0rd' of me, nor pa55w0rd; pa55w0rds is another word"
    assert masked(said, "mysql://me:pa%35%35w0rd@host") == "cannot use '***' of me, nor ***; pa55w0rds is another word"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///results/tracking/mlflow.db",
        "http://127.0.0.1:5000 and me@example.org",
        "postgresql://test@/postgres?host=/tmp/x",
        "max_tokens=5, tokens=128, method[dampening=1e-7]",
        "wheel:minilm, --sparsity 0.9",
    ],
)
def test_what_is_no_password_stays(text):
    assert masked(text) == text


def test_no_error_of_ours_holds_one(capsys):
    assert SECRET not in str(UserError(f"http://me:{SECRET}@host is down"))
    with only_warns("done, but", "mend"):
        raise OSError(f"http://me:{SECRET}@host is down")
    said = capsys.readouterr().err
    assert "http://me:***@host is down" in said and SECRET not in said


def test_errors_that_nobody_handles_and_logs_of_others_hold_none():
    code = f"""
import logging
from obert.foundation.passwords import mask_unforeseen
logging.basicConfig()
mask_unforeseen()
try:
    raise OSError("http://me:{SECRET}@host")
except OSError as error:
    logging.getLogger("some.library").exception("%s", error)
    raise KeyError("of http://me:{SECRET}@host") from error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    shown = [line for line in done.stderr.splitlines() if "raise " not in line]  # but for the lines of this code
    assert SECRET not in "\n".join(shown)
    assert done.stderr.count("me:***@host") >= 4 and "Traceback" in done.stderr


def test_a_log_without_handlers_holds_none(capsys):
    from obert.foundation.passwords import mask_logs

    mask_logs("some.library.without.handlers")
    record = logging.LogRecord("x", logging.WARNING, "", 0, "at %s", (f"http://me:{SECRET}@host",), None)
    for found in logging.lastResort.filters:
        found(record)
    assert record.getMessage() == "at http://me:***@host"
