"""Asks the history's database; the answer is plain data, the same for tables, JSON and the page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from typing import Any

from ...records import Outcome
from ...system import now_iso
from ..pages import whole_text
from .control import LOOKED_AT, judge
from .database import Database
from .finding import Source
from .reading import DRY_RUN

#: What counts as a failure: an operator's Ctrl-C does not.
FAILED = tuple(str(one) for one in Outcome if one not in (Outcome.PASSED, Outcome.INTERRUPTED))
#: A series whose last value is older than this, beside the rig's last session, has ended and is not told.
_ACTIVE_DAYS = 30
#: Sessions of a rig, or of a subject, in which a series' last values are looked for.
_LOOKED_THROUGH = 4 * LOOKED_AT
#: A step's duration that differs by less is no news.
_DURATION_SIGMA_S, _DURATION_SIGMA_PART = 0.25, 0.05

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

    made: str = ""
    sources: list[str] = field(default_factory=list)
    filters: Row = field(default_factory=dict)
    totals: Row = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)
    rigs: list[Row] = field(default_factory=list)
    weeks: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    devices: list[Row] = field(default_factory=list)
    series: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


_FAILED_SQL = ", ".join(f"'{one}'" for one in FAILED)
_COUNTS = f"""
    count(*) AS sessions,
    count(*) FILTER (outcome = 'passed') AS passed,
    count(*) FILTER (outcome IN ({_FAILED_SQL})) AS failed,
    count(*) FILTER (outcome = 'crashed') AS crashed,
    count(*) FILTER (outcome = 'interrupted') AS interrupted,
    count(*) FILTER (outcome IN ('unfinished', 'damaged', 'unknown')) AS unknown,
    round(coalesce(sum(duration_s), 0) / 3600, 3) AS hours
"""
#: Failure to failure, in hours of sessions, in sessions, and in days of the calendar.
_BETWEEN = """
    CASE WHEN failed > 0 THEN round(hours / failed, 3) END AS hours_between_failures,
    CASE WHEN failed > 0 THEN round(sessions / failed, 1) END AS sessions_between_failures,
    CASE WHEN failed > 1 THEN round(date_diff('second', first_failure, last_failure) / 86400.0 / (failed - 1), 2) END
        AS days_between_failures,
    last_failure,
    sessions_since_failure
"""
_RIGS = f"""
WITH counted AS (
    SELECT rig_id, {_COUNTS},
        min(started) FILTER (outcome IN ({_FAILED_SQL})) AS first_failure,
        max(started) FILTER (outcome IN ({_FAILED_SQL})) AS last_failure,
        max(started) AS last_session
    FROM chosen GROUP BY rig_id
), since AS (
    SELECT c.rig_id, count(*) FILTER (s.started > c.last_failure) AS sessions_since_failure
    FROM counted c JOIN chosen s USING (rig_id) GROUP BY c.rig_id
)
SELECT c.* EXCLUDE (first_failure, last_failure), {_BETWEEN}
FROM counted c JOIN since USING (rig_id) ORDER BY sessions DESC, rig_id
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
    CASE WHEN count(DISTINCT session_id) > 1
        THEN round(date_diff('second', min(s.started), max(s.started)) / 86400.0 / (count(DISTINCT session_id) - 1), 2) END
        AS days_between,
    arg_max(s.session_uuid, s.started) AS last_session
FROM failures f JOIN chosen s USING (session_id)
WHERE f.outcome <> 'interrupted' AND f.kind <> 'interrupt'
GROUP BY f.fingerprint ORDER BY failures DESC, last DESC, f.fingerprint
"""
_STEPS = f"""
WITH counted AS (
    SELECT step, phase, count(*) AS runs,
        count(*) FILTER (t.outcome = 'passed') AS passed,
        count(*) FILTER (t.outcome IN ({_FAILED_SQL})) AS failed,
        count(*) FILTER (t.outcome = 'skipped') AS skipped,
        count(*) FILTER (attempts > 1) AS repeated,
        quantile_cont(t.duration_s, [0.5, 0.95]) FILTER (t.outcome <> 'skipped') AS quantiles_s
    FROM steps t JOIN chosen s USING (session_id) GROUP BY step, phase
)
SELECT * EXCLUDE (quantiles_s), round(quantiles_s[1], 3) AS median_s, round(quantiles_s[2], 3) AS percentile_95_s
FROM counted ORDER BY failed DESC, runs DESC, step, phase
"""
_DEVICES = f"""
WITH blamed AS (
    SELECT s.rig_id, f.device, count(DISTINCT session_id) AS failures_that_name_it
    FROM failures f JOIN chosen s USING (session_id) WHERE f.device IS NOT NULL AND f.outcome <> 'interrupted' GROUP BY ALL
)
SELECT s.rig_id, d.device, arg_max(d.driver, s.started) AS driver, count(*) AS sessions,
    count(*) FILTER (d.simulated IS NOT NULL) AS simulated,
    count(*) FILTER (s.outcome IN ({_FAILED_SQL})) AS failed,
    coalesce(max(b.failures_that_name_it), 0) AS failures_that_name_it
FROM devices d JOIN chosen s USING (session_id) LEFT JOIN blamed b ON b.rig_id = s.rig_id AND b.device = d.device
GROUP BY s.rig_id, d.device ORDER BY failures_that_name_it DESC, failed DESC, sessions DESC, s.rig_id, d.device
"""
#: Only the last sessions can be in a series, so the others are left out before anything is sorted.
_SERIES = f"""
WITH by_rig AS (
    SELECT session_id, rig_id, started, duration_s, outcome, max(started) OVER (PARTITION BY rig_id) AS newest FROM chosen
    QUALIFY row_number() OVER (PARTITION BY rig_id ORDER BY started DESC, session_id DESC) <= {_LOOKED_THROUGH}
), by_subject AS (
    SELECT session_id, rig_id, subject_id, started, max(started) OVER (PARTITION BY subject_id) AS newest FROM chosen
    WHERE subject_id <> '' AND started > (SELECT max(started) FROM chosen) - INTERVAL 365 DAY
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY started DESC, session_id DESC) <= {LOOKED_AT}
), single AS (
    SELECT 'measurement' AS kind, rig_id, NULL AS subject_id, measurement AS name, unit,
        value, minimum, maximum, started, newest, position
    FROM by_rig JOIN measurements USING (session_id) WHERE value IS NOT NULL
    UNION ALL
    SELECT 'measurement', NULL, subject_id, measurement, unit, value, minimum, maximum, started, newest, position
    FROM by_subject JOIN measurements USING (session_id) WHERE value IS NOT NULL
    UNION ALL
    SELECT 'duration', rig_id, NULL, step, 's', t.duration_s, NULL, NULL, started, newest, position
    FROM by_rig b JOIN steps t USING (session_id) WHERE t.outcome = 'passed' AND t.duration_s IS NOT NULL
    UNION ALL
    SELECT 'duration', rig_id, NULL, '(session)', 's', duration_s, NULL, NULL, started, newest, 0
    FROM by_rig WHERE outcome = 'passed' AND duration_s IS NOT NULL
), last_ones AS (
    SELECT *, row_number() OVER (PARTITION BY kind, rig_id, subject_id, name, unit ORDER BY started DESC, position DESC) AS back
    FROM single QUALIFY back <= {LOOKED_AT}
)
SELECT kind, rig_id, subject_id, name, unit, list(value ORDER BY back DESC) AS last_values,
    arg_min(minimum, back) FILTER (back = 1) AS minimum, arg_min(maximum, back) FILTER (back = 1) AS maximum,
    max(started) AS last, date_diff('day', max(started), max(newest)) <= {_ACTIVE_DAYS} AS active
FROM last_ones GROUP BY kind, rig_id, subject_id, name, unit
"""


def ask(database: Database, sources: Sequence[Source], rigs: Sequence[str], since: date | None) -> HistoryAnswer:
    """Return what the sessions of these sources say.

    Args:
        rigs: only sessions of these rigs; of all without.
        since: only sessions that began on this day or later.
    """
    run = database.connection.execute
    names = [source.name for source in sources]
    filters = [since or date(1, 1, 1), [whole_text(rig) for rig in rigs]]
    run(
        "CREATE OR REPLACE TEMP TABLE chosen AS SELECT * FROM sessions "
        "WHERE date >= $2 AND (len($3) = 0 OR rig_id IN (SELECT unnest($3))) "
        "AND session_id IN (SELECT session_id FROM folders WHERE source IN (SELECT unnest($1)))",
        [names, *filters],
    )
    (dry,) = run(
        "SELECT count(DISTINCT session_id) FROM folders WHERE kind = $2 AND source IN (SELECT unnest($1))", [names, DRY_RUN]
    ).fetchone() or (0,)
    (totals,) = _rows(database, f"SELECT {_COUNTS}, min(started) AS first, max(started) AS last FROM chosen")
    series = sorted(map(_judged, _rows(database, _SERIES)), key=_urgency)
    return HistoryAnswer(
        made=now_iso(),
        sources=[str(source.path) for source in sources],
        filters={"rigs": list(rigs), "since": since.isoformat() if since else None},
        totals={**totals, "dry_runs_left_out": dry},
        told=[_line(one) for one in series if one["told"]],
        outcomes=_rows(database, _OUTCOMES),
        rigs=_rows(database, _RIGS),
        weeks=_rows(database, _WEEKS),
        failures=_rows(database, _FAILURES),
        steps=_rows(database, _STEPS),
        devices=_rows(database, _DEVICES),
        series=series,
    )


def _rows(database: Database, query: str) -> list[Row]:
    asked = database.connection.execute(query)
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
