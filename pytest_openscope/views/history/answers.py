"""Asks the history, one process at a time; the answer is plain data, the same for tables, JSON and the page."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from ...config import default_state_directory
from ...records import Outcome
from ...system import FileLock, now_iso, replace_file
from ..values import whole_text
from .control import LOOKED_AT, judge
from .database import Database, HistoryError, say
from .finding import Source
from .reading import DRY_RUN

#: A series whose last value is older than this, beside the rig's last session, has ended and is not told.
_ACTIVE_DAYS = 30
#: Sessions of a rig, or of a subject, in which a series' last values are looked for.
_LOOKED_THROUGH = 4 * LOOKED_AT
#: A step's duration that differs by less is no news.
_DURATION_SIGMA_S, _DURATION_SIGMA_PART = 0.25, 0.05
#: A first pass over a slow share takes long; whoever waits is told so.
WAIT_S = 600.0
_TELL_AFTER_S = 1.0
#: What DuckDB says of files that are none of its own, cut short or overwritten.
_DAMAGE = ("not a valid DuckDB", "orrupt", "checksum", "deserialize", "not read enough bytes", "INTERNAL Error")

Row = dict[str, Any]


@dataclass
class HistoryAnswer:
    """What the sessions of some sources say; each list is a table.

    Attributes:
        totals: numbers over all: ``sessions``, ``hours``, ``first``, ``last``, ``dry_runs_left_out``.
        outcomes, rigs, weeks, steps, devices: sessions (steps: runs) by outcome, rig, week, step, device.
        failures: defects, by fingerprint, the most frequent first.
        series: measurements and durations against their own past, those to look at first.
        told: a line for each series that somebody should look at.
        problems: what could not be read.
    """

    made: str
    sources: list[str]
    filters: Row
    totals: Row
    told: list[str]
    outcomes: list[Row]
    rigs: list[Row]
    weeks: list[Row]
    failures: list[Row]
    steps: list[Row]
    devices: list[Row]
    series: list[Row]
    problems: list[str]


#: What counts as a failure: an operator's Ctrl-C does not.
_FAILED_SQL = ", ".join(f"'{one}'" for one in Outcome if one not in (Outcome.PASSED, Outcome.INTERRUPTED))
_COUNTS = """
    count(*) AS sessions,
    count(*) FILTER (outcome = 'passed') AS passed,
    count(*) FILTER (bad) AS failed,
    count(*) FILTER (outcome = 'crashed') AS crashed,
    count(*) FILTER (outcome = 'interrupted') AS interrupted,
    count(*) FILTER (outcome IN ('unfinished', 'damaged', 'unknown')) AS unknown,
    round(coalesce(sum(duration_s), 0) / 3600, 3) AS hours
"""
#: Failure to failure in hours of sessions, in sessions, and in days of the calendar.
_RIGS = f"""
SELECT rig_id, {_COUNTS}, max(started) AS last_session,
    round(hours / nullif(failed, 0), 3) AS hours_between_failures,
    round(sessions / nullif(failed, 0), 1) AS sessions_between_failures,
    round(date_diff('second', min(started) FILTER (bad), max(last_bad)) / 86400.0 / nullif(failed - 1, 0), 2)
        AS days_between_failures,
    max(last_bad) AS last_failure, count(*) FILTER (started > last_bad) AS sessions_since_failure
FROM (SELECT *, max(started) FILTER (bad) OVER (PARTITION BY rig_id) AS last_bad FROM chosen)
GROUP BY rig_id ORDER BY sessions DESC, rig_id
"""
_WEEKS = f"SELECT date_trunc('week', date)::DATE AS week, {_COUNTS} FROM chosen GROUP BY week ORDER BY week"
_OUTCOMES = """
SELECT outcome, count(*) AS sessions, round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent
FROM chosen GROUP BY outcome ORDER BY sessions DESC, outcome
"""
_FAILURES = """
SELECT f.fingerprint, count(*) AS failures, count(DISTINCT session_id) AS sessions,
    list_sort(list(DISTINCT s.rig_id)) AS rigs,
    list_sort(list(DISTINCT f.device) FILTER (f.device IS NOT NULL)) AS devices,
    arg_max(f.phase, s.started) AS phase, arg_max(f.step, s.started) AS step,
    arg_max(f.exception_type, s.started) AS exception_type, arg_max(f.message, s.started) AS message,
    max(f.issue_url) AS issue_url,
    min(s.started) AS first, max(s.started) AS last,
    round(date_diff('second', min(s.started), max(s.started)) / 86400.0 / nullif(count(DISTINCT session_id) - 1, 0), 2)
        AS days_between,
    arg_max(s.session_uuid, s.started) AS last_session
FROM failures f JOIN chosen s USING (session_id)
WHERE f.outcome <> 'interrupted' AND f.kind <> 'interrupt'
GROUP BY f.fingerprint ORDER BY failures DESC, last DESC, f.fingerprint
"""
_STEPS = f"""
SELECT step, phase, count(*) AS runs,
    count(*) FILTER (t.outcome = 'passed') AS passed,
    count(*) FILTER (t.outcome IN ({_FAILED_SQL})) AS failed,
    count(*) FILTER (t.outcome = 'skipped') AS skipped,
    count(*) FILTER (attempts > 1) AS repeated,
    round(quantile_cont(t.duration_s, 0.5) FILTER (t.outcome <> 'skipped'), 3) AS median_s,
    round(quantile_cont(t.duration_s, 0.95) FILTER (t.outcome <> 'skipped'), 3) AS percentile_95_s
FROM steps t JOIN chosen USING (session_id) GROUP BY step, phase ORDER BY failed DESC, runs DESC, step, phase
"""
_DEVICES = """
WITH blamed AS (
    SELECT s.rig_id, f.device, count(DISTINCT session_id) AS failures_that_name_it
    FROM failures f JOIN chosen s USING (session_id) WHERE f.device IS NOT NULL AND f.outcome <> 'interrupted' GROUP BY ALL
)
SELECT s.rig_id, d.device, arg_max(d.driver, s.started) AS driver, count(*) AS sessions,
    count(*) FILTER (d.simulated IS NOT NULL) AS simulated,
    count(*) FILTER (s.bad) AS failed,
    coalesce(max(b.failures_that_name_it), 0) AS failures_that_name_it
FROM devices d JOIN chosen s USING (session_id) LEFT JOIN blamed b ON b.rig_id = s.rig_id AND b.device = d.device
GROUP BY s.rig_id, d.device ORDER BY failures_that_name_it DESC, failed DESC, sessions DESC, s.rig_id, d.device
"""
#: Only the last sessions can be in a series, so the others are left out before anything is sorted.
_SERIES = f"""
WITH looked_at AS (
    SELECT session_id, rig_id, NULL AS subject_id, started, max(started) OVER (PARTITION BY rig_id) AS newest,
        duration_s, outcome
    FROM chosen QUALIFY row_number() OVER (PARTITION BY rig_id ORDER BY started DESC, session_id DESC) <= {_LOOKED_THROUGH}
    UNION ALL
    SELECT session_id, NULL, subject_id, started, max(started) OVER (PARTITION BY subject_id), NULL, NULL FROM chosen
    WHERE subject_id <> '' AND started > (SELECT max(started) FROM chosen) - INTERVAL 365 DAY
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY started DESC, session_id DESC) <= {LOOKED_AT}
), single AS (
    SELECT 'measurement' AS kind, rig_id, subject_id, measurement AS name, unit,
        value, minimum, maximum, started, newest, position
    FROM looked_at JOIN measurements USING (session_id) WHERE value IS NOT NULL
    UNION ALL
    SELECT 'duration', rig_id, NULL, step, 's', t.duration_s, NULL, NULL, started, newest, position
    FROM looked_at JOIN steps t USING (session_id)
    WHERE rig_id IS NOT NULL AND t.outcome = 'passed' AND t.duration_s IS NOT NULL
    UNION ALL
    SELECT 'duration', rig_id, NULL, '(session)', 's', duration_s, NULL, NULL, started, newest, 0
    FROM looked_at WHERE outcome = 'passed' AND duration_s IS NOT NULL
), last_ones AS (
    SELECT *, row_number() OVER (PARTITION BY kind, rig_id, subject_id, name, unit ORDER BY started DESC, position DESC) AS back
    FROM single QUALIFY back <= {LOOKED_AT}
)
SELECT kind, rig_id, subject_id, name, unit, list(value ORDER BY back DESC) AS last_values,
    arg_min(minimum, back) FILTER (back = 1) AS minimum, arg_min(maximum, back) FILTER (back = 1) AS maximum,
    max(started) AS last, date_diff('day', max(started), max(newest)) <= {_ACTIVE_DAYS} AS active
FROM last_ones GROUP BY kind, rig_id, subject_id, name, unit
"""


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
        with closing(database.connection):
            problems = database.update(sources, full)
            found = _ask(database, sources, rigs, since, problems)
            if parquet is not None:
                database.write_parquet(parquet, sources, full)
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
        with suppress(FileNotFoundError):
            replace_file(path.with_name(path.name + suffix), kept.with_name(kept.name + suffix))
    return kept


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _ask(
    database: Database, sources: Sequence[Source], rigs: Sequence[str], since: date | None, problems: list[str]
) -> HistoryAnswer:
    names = [source.name for source in sources]
    database.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE chosen AS SELECT *, outcome IN ({_FAILED_SQL}) AS bad FROM sessions "
        "WHERE date >= $2 AND (len($3) = 0 OR rig_id IN (SELECT unnest($3))) "
        "AND session_id IN (SELECT session_id FROM folders WHERE source IN (SELECT unnest($1)))",
        [names, since or date(1, 1, 1), [whole_text(rig) for rig in rigs]],
    )
    dry = "SELECT count(DISTINCT session_id) FROM folders WHERE kind = $1 AND source IN (SELECT unnest($2))"
    totals = f"SELECT {_COUNTS}, min(started) AS first, max(started) AS last, ({dry}) AS dry_runs_left_out FROM chosen"
    series = sorted(map(_judged, _rows(database, _SERIES)), key=_urgency)
    return HistoryAnswer(
        made=now_iso(),
        sources=[str(source.path) for source in sources],
        filters={"rigs": list(rigs), "since": since.isoformat() if since else None},
        totals=_rows(database, totals, [DRY_RUN, names])[0],
        told=[_line(one) for one in series if one["told"]],
        outcomes=_rows(database, _OUTCOMES),
        rigs=_rows(database, _RIGS),
        weeks=_rows(database, _WEEKS),
        failures=_rows(database, _FAILURES),
        steps=_rows(database, _STEPS),
        devices=_rows(database, _DEVICES),
        series=series,
        problems=problems,
    )


def _rows(database: Database, query: str, given: Sequence[Any] = ()) -> list[Row]:
    asked = database.connection.execute(query, given)
    names = [column[0] for column in asked.description or ()]
    return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in asked.fetchall()]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        # The database keeps UTC.
        return value.replace(tzinfo=timezone.utc).isoformat(timespec="seconds")
    return value.isoformat() if isinstance(value, date) else value


def _judged(one: Row) -> Row:
    values: list[float] = one["last_values"]
    smallest = 0.0
    if one["kind"] == "duration":
        smallest = max(_DURATION_SIGMA_S, _DURATION_SIGMA_PART * sorted(values)[len(values) // 2])
    verdict = judge(values, one["minimum"], one["maximum"], smallest)
    return {**one, "value": values[-1], **asdict(verdict), "told": verdict.told and one["active"]}


def _urgency(one: Row) -> tuple[Any, ...]:
    names = [str(one[key]) for key in ("name", "rig_id", "subject_id")]
    return (not one["told"], one["reaches_in"] or math.inf, not one["drift"], one["kind"] == "duration", *names)


def _line(one: Row) -> str:
    """Say what a series does and what it was held against."""
    unit = f" {one['unit']}" if one["unit"] else ""
    who = f"rig {one['rig_id']}" if one["rig_id"] is not None else f"subject {one['subject_id']}"
    what = f"duration of {one['name']}" if one["kind"] == "duration" else one["name"]
    said = []
    if one["drift"]:
        said.append(f"drifts {one['drift']}")
    if one["outside"]:
        said.append("is outside its control limits")
    if one["reaches"]:
        sessions = "session" if one["reaches_in"] == 1 else "sessions"
        said.append(f"reaches its {one['reaches']} {number(one[one['reaches']])}{unit} in about {one['reaches_in']} {sessions}")
    limits = f"median {number(one['median'])}, control limits {number(one['low'])} to {number(one['high'])}"
    return f"{who}: {what} {', '.join(said)}: {number(one['value'])}{unit} ({limits})"


def number(value: Any) -> str:
    """Return a number as people read it."""
    if value is None:
        return "–"
    return re.sub(r"\.0$", "", f"{value:.4g}") if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"
