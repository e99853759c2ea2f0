"""One request to the history: the database opened by one process at a time, brought up to date, asked, written out."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ...config import default_state_directory
from ...system import FileLock, replace_file
from .answers import HistoryAnswer, ask
from .database import Database, HistoryError
from .finding import Source

#: A first pass over a slow share takes long; whoever waits is told so.
WAIT_S = 600.0
_TELL_AFTER_S = 1.0
_TELL_EVERY = 5000
#: What DuckDB says of files that are none of its own, cut short or overwritten.
_DAMAGE = ("not a valid DuckDB", "orrupt", "checksum", "deserialize", "not read enough bytes", "INTERNAL Error")


@dataclass(frozen=True)
class HistoryRequest:
    """What is asked.

    Attributes:
        sources: where sessions lie.
        database: the file on this computer.
        rigs, since: which sessions count; all without.
        full: look again at sessions too that ended long ago.
        parquet: folder that gets the tables, of all sessions of the sources.
        wait_s: how long to wait for another history on the same database.
    """

    sources: tuple[Source, ...]
    database: Path
    rigs: tuple[str, ...] = ()
    since: date | None = None
    full: bool = False
    parquet: Path | None = None
    wait_s: float = WAIT_S


def history_database(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the database is unless another place is given: with the state of this user's rigs, never on a share."""
    return default_state_directory("any", environ).parent / "history.duckdb"


def answer_history(request: HistoryRequest) -> HistoryAnswer:
    """Bring the database up to date and ask it; what cannot be read stands in the answer's ``problems``.

    Raises:
        ImportError: DuckDB is not installed (extra ``history``).
        HistoryError: the database cannot be used, or the Parquet files cannot be written.
    """
    import duckdb

    path = request.database
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        if not lock.acquire(_TELL_AFTER_S):
            _say(f"another history uses {path}; waiting for it (at most {request.wait_s:.0f} s)")
            if not lock.acquire(request.wait_s):
                raise HistoryError(f"{path} is in use by another history -> try again later, or give another --database")
    except OSError as error:
        raise HistoryError(f"{path} cannot be used: {error.strerror or error} -> give another place with --database") from error
    with lock:
        try:
            try:
                return _answer(request)
            except duckdb.Error as error:
                if not _is_damage(error):
                    raise
                kept = _set_aside(path)
                answer = _answer(request)
                problem = f"{path} was damaged ({_first_line(error)}); it is kept as {kept.name}, all sessions were read again"
                answer.problems.insert(0, problem)
                return answer
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
            raise HistoryError(f"{error.filename or request.parquet}: {error.strerror or error}") from error


def _answer(request: HistoryRequest) -> HistoryAnswer:
    database = Database(request.database)
    try:
        problems = database.update(request.sources, date.today(), request.full, _Progress())
        answer = ask(database, request.sources, request.rigs, request.since)
        if request.parquet is not None:
            database.write_parquet(request.parquet, request.sources, request.full)
    finally:
        database.close()
    answer.problems = problems
    return answer


def _is_damage(error: Exception) -> bool:
    """Tell whether the file itself is no good; a full disk, a lock or a newer DuckDB's file is something else."""
    return any(words in str(error) for words in _DAMAGE)


def _set_aside(path: Path) -> Path:
    """Give a damaged database another name: it may know sessions whose folders are gone."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    replace_file(path, kept)
    log = path.with_name(path.name + ".wal")
    if log.exists():
        replace_file(log, kept.with_name(kept.name + ".wal"))
    return kept


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Progress:
    """Tells now and then how many sessions have been read; a first pass takes minutes."""

    def __init__(self) -> None:
        self._next = _TELL_EVERY

    def __call__(self, count: int) -> None:
        if count >= self._next:
            _say(f"{count} sessions read")
            self._next = count + _TELL_EVERY
