"""What an SQLite database of MLflow's holds, read without MLflow, which would begin to change it."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from obert.foundation.errors import UserError

OWN = {"alembic_version", "experiments"}  # tables that MLflow makes first
BESIDE = ("-journal", "-wal", "-shm")  # SQLite's files of unfinished work, which are of no other database
STILL_SECONDS, LONGEST_SECONDS = 3.0, 120.0


@dataclass(frozen=True)
class Content:
    """What is in a database.

    Attributes:
        complete: its schema is the one of the MLflow that is installed.
        known: that MLflow knows the schema, so that it is not a newer one's.
        kept: it has runs, or experiments that somebody made.
    """

    complete: bool
    known: bool
    kept: bool


def read_content(database: Path) -> Content | None:
    """What a database holds, None for one that is missing or has no tables.

    Raises:
        UserError: it is another program's, or no database.
    """
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as connection:

            def ask(query: str) -> set:
                return {row[0] for row in connection.execute(query)}

            tables = ask("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not tables:
                return None
            if not tables & OWN:
                raise UserError(
                    f"tracking database {database} is another program's: it has the tables "
                    f"{', '.join(sorted(tables)[:5])}. Give another path in tracking_uri"
                )
            revisions = ask("SELECT version_num FROM alembic_version") if "alembic_version" in tables else set()
            runs = ask("SELECT count(*) FROM runs") if "runs" in tables else {0}
            experiments = ask("SELECT count(*) FROM experiments") if "experiments" in tables else {0}
    except sqlite3.Error as error:
        raise UserError(
            f"tracking database {database} cannot be read: {error}. Move it away: the same command makes a new one, "
            "and `python -m obert track` fills it from the records"
        ) from None
    head, known = _revisions()
    return Content(revisions == {head}, revisions <= known, runs != {0} or max(experiments) > 1)


def wait_while_it_is_made(database: Path) -> Content | None:
    """What a database holds when it is complete, or when nothing has changed in it for some seconds: MLflow's own
    commands make one table by table, and must not be disturbed."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        content = read_content(database)
        if content is None or content.complete or time.monotonic() > deadline:
            return content
        if time.time() - database.stat().st_mtime > STILL_SECONDS:
            return content
        time.sleep(0.2)


def put_in_place(made: Path, database: Path) -> None:
    """Let a new database take the place of another, if there is one."""
    for ending in BESIDE:
        database.with_name(database.name + ending).unlink(missing_ok=True)
    made.replace(database)


def _revisions() -> tuple[str | None, set[str]]:
    """The last schema that the installed MLflow knows, and all that it knows."""
    import mlflow.store
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.store.__file__).parent / "db_migrations"))
    return scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
