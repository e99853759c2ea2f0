"""One request to the history: the database opened by one process at a time, brought up to date, asked, written out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from ...config import default_state_directory
from ...system import FileLock, replace_file
from .answers import HistoryAnswer, ask
from .database import Database, HistoryError, say
from .finding import Source

#: A first pass over a slow share takes long; whoever waits is told so.
WAIT_S = 600.0
_TELL_AFTER_S = 1.0
#: What DuckDB says of files that are none of its own, cut short or overwritten.
_DAMAGE = ("not a valid DuckDB", "orrupt", "checksum", "deserialize", "not read enough bytes", "INTERNAL Error")


def history_database(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the database is unless another place is given: with the state of this user's rigs, never on a share."""
    return default_state_directory("any", environ).parent / "history.duckdb"


def answer_history(
    sources: Sequence[Source],
    path: Path,
    rigs: Sequence[str] = (),
    since: date | None = None,
    full: bool = False,
    parquet: Path | None = None,
) -> HistoryAnswer:
    """Bring the database up to date and ask it; what cannot be read stands in the answer's ``problems``.

    Args:
        sources: where sessions lie.
        path: the database's file on this computer.
        rigs, since: which sessions count; all without.
        full: look again at sessions too that ended long ago.
        parquet: folder that gets the tables, of all sessions of the sources.

    Raises:
        ImportError: DuckDB is not installed (extra ``history``).
        HistoryError: the database cannot be used, or the Parquet files cannot be written.
    """
    import duckdb

    def answer() -> HistoryAnswer:
        database = Database(path)
        try:
            problems = database.update(sources, date.today(), full)
            found = ask(database, sources, rigs, since)
            if parquet is not None:
                database.write_parquet(parquet, sources, full)
        finally:
            database.close()
        found.problems = problems
        return found

    with _alone(path):
        try:
            try:
                return answer()
            except duckdb.Error as error:
                if not any(words in str(error) for words in _DAMAGE):
                    raise  # a full disk, a lock, a newer DuckDB's file
                kept = _set_aside(path)
                again = answer()
                problem = f"{path} was damaged ({_first_line(error)}); it is kept as {kept.name}, all sessions were read again"
                again.problems.insert(0, problem)
                return again
        except (RuntimeError, duckdb.InterruptException) as error:
            # What DuckDB makes of a Ctrl-C within a query.
            if "nterrupted" in str(error):
                raise KeyboardInterrupt from error
            raise
        except duckdb.ProgrammingError:
            raise  # No state of a file or a disk leads to these.
        except duckdb.Error as error:
            remedy = "close what has it open, look for room on the disk, or give another --database"
            raise HistoryError(f"{path}: {_first_line(error)} -> {remedy}") from error
        except OSError as error:
            raise HistoryError(f"{error.filename or parquet}: {error.strerror or error}") from error


def _alone(path: Path) -> FileLock:
    """Return the lock on a database, once no other history has it."""
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        if not lock.acquire(_TELL_AFTER_S):
            say(f"another history uses {path}; waiting for it (at most {WAIT_S:.0f} s)")
            if not lock.acquire(WAIT_S):
                raise HistoryError(f"{path} is in use by another history -> try again later, or give another --database")
    except OSError as error:
        raise HistoryError(f"{path} cannot be used: {error.strerror or error} -> give another place with --database") from error
    return lock


def _set_aside(path: Path) -> Path:
    """Give a damaged database another name: it may know sessions whose folders are gone."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", ".wal"):
        with contextlib.suppress(FileNotFoundError):
            replace_file(path.with_name(path.name + suffix), kept.with_name(kept.name + suffix))
    return kept


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
