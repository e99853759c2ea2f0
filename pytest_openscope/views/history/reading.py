"""From a session folder to rows of the history's tables; a damaged one becomes rows too, never an error."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from ...issues import Sources, fingerprint_of, fingerprint_of_name
from ...records import DEBUG_STATE, END_STATE, JOURNAL, METADATA, Failure, Outcome, failures_in

#: Columns of the tables, in the order in which rows have them, with their types in DuckDB. Parquet files have the same.
TABLES: dict[str, dict[str, str]] = {
    "sessions": {
        "session_id": "BIGINT",
        "session_uuid": "VARCHAR",
        "rig_id": "VARCHAR",
        "rig": "VARCHAR",
        "date": "DATE",
        "subject_id": "VARCHAR",
        "user_id": "VARCHAR",
        "started": "TIMESTAMP",
        "duration_s": "DOUBLE",
        "outcome": "VARCHAR",
        "exit_code": "BIGINT",
        "version": "VARCHAR",
        "mirror": "VARCHAR",
        "continues": "VARCHAR",
        "lost_records": "BIGINT",
    },
    "steps": {
        "session_id": "BIGINT",
        "position": "BIGINT",
        "step": "VARCHAR",
        "phase": "VARCHAR",
        "kind": "VARCHAR",
        "outcome": "VARCHAR",
        "duration_s": "DOUBLE",
        "attempts": "BIGINT",
    },
    "failures": {
        "session_id": "BIGINT",
        "position": "BIGINT",
        "fingerprint": "VARCHAR",
        "kind": "VARCHAR",
        "outcome": "VARCHAR",
        "phase": "VARCHAR",
        "step": "VARCHAR",
        "device": "VARCHAR",
        "exception_type": "VARCHAR",
        "message": "VARCHAR",
        "issue_url": "VARCHAR",
    },
    "measurements": {
        "session_id": "BIGINT",
        "position": "BIGINT",
        "measurement": "VARCHAR",
        "value": "DOUBLE",
        "text": "VARCHAR",
        "unit": "VARCHAR",
        "minimum": "DOUBLE",
        "maximum": "DOUBLE",
        "passed": "BOOLEAN",
        "step": "VARCHAR",
    },
    "devices": {"session_id": "BIGINT", "device": "VARCHAR", "driver": "VARCHAR", "simulated": "VARCHAR"},
}
#: Outcomes of the history beside those of sessions: no end state (yet), one that cannot be read, one that tells none.
UNFINISHED, DAMAGED, UNKNOWN = "unfinished", "damaged", "unknown"
#: Kinds of folders: of what they hold, only a session's is in the tables.
SESSION, DRY_RUN = "session", "dry run"
_MOST_BYTES = 64_000_000
_MOST_CHARS = 2000
_JOURNAL_BYTES = 256_000
_NAME = re.compile(r"_(\d{4})-(\d\d)-(\d\d)_(\d\d)-(\d\d)-(\d\d)(?!\d)")


@dataclass(frozen=True)
class Place:
    """A folder that may be a session's.

    Attributes:
        path: the session folder, or its copy in a central directory.
        rig, day: what the folders above tell of it in a central directory.
    """

    path: Path
    rig: str = ""
    day: date | None = None

    @property
    def central(self) -> bool:
        """Whether it is a copy in a central directory, which has no ``launcher_metadata``."""
        return self.day is not None

    def files(self) -> tuple[Path, Path]:
        """Return where the end state and the debug state are."""
        if not self.central:
            return self.path / METADATA / END_STATE, self.path / METADATA / DEBUG_STATE
        # Where the name was somebody else's already, the mirror counts its files.
        if not (self.path / END_STATE).exists() and (self.path / _second(END_STATE)).exists():
            return self.path / _second(END_STATE), self.path / _second(DEBUG_STATE)
        return self.path / END_STATE, self.path / DEBUG_STATE

    def stamp(self) -> str | None:
        """Return what changes whenever the session's states do; None where this is no session.

        Raises:
            OSError: the folder cannot be looked at.
        """
        end, debug = self.files()
        stamps = [_stamp_of(end), _stamp_of(debug)]
        if not any(stamps) and not ((self.path / METADATA).is_dir() if not self.central else _has_log(self.path)):
            return None
        return " ".join(stamps)


@dataclass
class Rows:
    """One folder as rows.

    Attributes:
        place, stamp: the folder, and its :meth:`Place.stamp` when it was read.
        kind: ``session`` or ``dry run``.
        settled: it has ended for good; only a rescue or a continuation changes it later.
        tables: rows by table, values in the order of :data:`TABLES`.
    """

    place: Place
    stamp: str
    kind: str = SESSION
    session_id: int = 0
    day: date = date(1970, 1, 1)
    rig: str = ""
    settled: bool = True
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)


def read_session(place: Place, stamp: str) -> Rows:
    """Read a session folder.

    Raises:
        OSError: a file is there and cannot be read now.
    """
    end_path, debug_path = place.files()
    end, damaged = _read(end_path)
    debug, _ = _read(debug_path)
    journal = _journal(place) if not end else {}
    known = {**journal, **end}
    rows = Rows(place, stamp)
    config = known.get("rig_config")
    rig_id = _text(known.get("rig_id") or (config.get("rig_id") if isinstance(config, dict) else "")) or place.rig or UNKNOWN
    started = _time(known.get("start_time") or known.get("started")) or _started_by_name(place)
    stopped = _time(end.get("stop_time"))
    uuid = _text(known.get("session_uuid")) or _text(place.path.name) or ""
    outcome = _outcome(end, debug, damaged)
    rows.settled = bool(end) and not damaged and outcome != UNFINISHED
    rows.day, rows.rig = started.date(), partition_name(rig_id)
    rows.session_id = session_id(rig_id, uuid, rows.day)
    if known.get("dry_run") is True:
        # It may have the name of a real one.
        rows.kind, rows.session_id = DRY_RUN, session_id(rig_id, f"{DRY_RUN}\x1f{uuid}", rows.day)
        return rows
    mirror, continues = _mapping(end.get("mirror")), _mapping(end.get("continues"))
    session = (
        rows.session_id,
        uuid,
        rig_id,
        rows.rig,
        rows.day,
        _text(known.get("subject_id")),
        _text(known.get("user_id")),
        started.astimezone(timezone.utc).replace(tzinfo=None),
        _duration_s(end, started, stopped),
        outcome,
        _integer(end.get("exit_code")),
        _text(end.get("version")),
        _text(mirror.get("status")),
        _text(continues.get("session_uuid")),
        _integer(end.get("lost_records")) or 0,
    )
    devices = _mapping(end.get("devices"))
    rows.tables = {
        "sessions": [session],
        "steps": _steps(rows.session_id, end),
        "failures": _failures(rows.session_id, end, debug, [uuid, rig_id, session[5], session[6]], journal, devices),
        "measurements": _measurements(rows.session_id, end),
        "devices": [
            (rows.session_id, _text(name), _text(one.get("driver")), _text(one.get("simulated")))
            for name, one in devices.items()
            if isinstance(one, dict)
        ],
    }
    return rows


def session_id(rig_id: str, session_uuid: str, day: date) -> int:
    """Return a session's number, the same wherever and from whichever copy it is read: 63 bits of a hash."""
    text = "\x1f".join((rig_id, session_uuid, day.isoformat()))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:8], "big") >> 1


def partition_name(rig_id: str) -> str:
    """Return a rig's name as a folder of every system and every engine takes it.

    Rigs whose names differ in such characters only, or in capitals, differ in the digits behind.
    """
    plain = re.sub(r"[^a-z0-9_-]+", "-", rig_id.lower())[:60].strip("-") or "rig"
    if plain == rig_id:
        return plain
    return f"{plain}-{hashlib.sha256(rig_id.encode('utf-8', 'backslashreplace')).hexdigest()[:6]}"


def _outcome(end: Mapping[str, Any], debug: Mapping[str, Any], damaged: bool) -> str:
    if damaged:
        return DAMAGED
    if not end or end.get("provisional"):
        return UNFINISHED
    outcome = _text(end.get("outcome"))
    if outcome:
        return outcome
    # The launcher that came before told no outcome.
    code = _integer(end.get("process_returncode"))
    if debug or code:
        return str(Outcome.FAILED)
    return str(Outcome.PASSED) if code == 0 else UNKNOWN


def _steps(number: int, end: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    found = []
    for position, one in enumerate(_objects(end.get("steps"))):
        attempts = one.get("attempts")
        found.append(
            (
                number,
                position,
                _text(one.get("name")) or "",
                _text(one.get("phase")) or "",
                _text(one.get("kind")) or "test",
                _text(one.get("outcome")) or "skipped",
                _number(one.get("duration_s")),
                (len(attempts) if isinstance(attempts, list) else 0) + 1,
            )
        )
    return found


def _measurements(number: int, end: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    found = []
    for position, one in enumerate(_objects(end.get("measurements"))):
        value, passed = one.get("value"), one.get("passed")
        found.append(
            (
                number,
                position,
                _text(one.get("name")) or "",
                _number(value),
                None if _number(value) is not None else _text(value),
                _text(one.get("unit")) or "",
                _number(one.get("minimum")),
                _number(one.get("maximum")),
                passed if isinstance(passed, bool) else None,
                _text(one.get("step")) or "",
            )
        )
    return found


def _failures(
    number: int,
    end: Mapping[str, Any],
    debug: Mapping[str, Any],
    names: Iterable[str | None],
    journal: Mapping[str, Any],
    devices: Mapping[str, Any],
) -> list[tuple[Any, ...]]:
    """Return the failures, each with its fingerprint: that of its report where one was made, else computed in the same way."""
    whole = _whole_failures(end, debug)
    reports = [one for one in _objects(_mapping(debug.get("github")).get("reports")) if isinstance(one.get("fingerprint"), str)]
    private = [name for name in names if name]
    sources = Sources(_text(_mapping(debug.get("platform")).get("python")) or "")
    prints = []
    for failure in whole:
        try:
            prints.append(fingerprint_of(failure, private, sources))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            # A damaged file whose values are of other kinds than the names say.
            prints.append(fingerprint_of_name(f"{failure.kind} {failure.phase} {failure.step} {failure.exception_type}"))
    if len(reports) == 1 and len(set(prints)) == 1:
        # The session's own computer knew more: its sources, the names of the machine.
        prints = [_text(reports[0]["fingerprint"]) or "" for _ in prints]
    urls = {str(one["fingerprint"]): _text(one.get("issue_url")) for one in reports}
    found = []
    for position, (failure, fingerprint) in enumerate(zip(whole, prints, strict=True)):
        message, step = _text(failure.message) or "", _text(failure.step) or ""
        found.append(
            (
                number,
                position,
                fingerprint,
                _text(failure.kind) or "",
                str(failure.outcome),
                str(failure.phase or ""),
                step,
                _device_in(devices, message, step),
                _text(failure.exception_type) or "",
                message,
                urls.get(fingerprint),
            )
        )
    return found


def _whole_failures(end: Mapping[str, Any], debug: Mapping[str, Any]) -> list[Failure]:
    whole = failures_in(debug) if isinstance(debug.get("other_failures") or [], list) else []
    if whole:
        return whole
    brief = _objects(end.get("failures"))
    if not brief and debug.get("exception"):
        # The launcher that came before.
        kind = _mapping(debug.get("crash_info")).get("exception_type")
        brief = [{"kind": "exception", "outcome": "failed", "message": debug["exception"], "exception_type": kind}]
    found = []
    for one in brief:
        texts = {key: _text(one.get(key)) or "" for key in ("kind", "outcome", "step", "exception_type", "message", "phase")}
        try:
            found.append(Failure.from_json(texts))
        except (ValueError, KeyError):
            failure = Failure(texts["kind"] or "exception", Outcome.ERROR, texts["message"], texts["exception_type"])
            failure.step = texts["step"]
            found.append(failure)
    return found


def _device_in(devices: Mapping[str, Any], message: str, step: str) -> str | None:
    """Return the device that a failure's message names, or else its step; the longest name of several."""
    for text in (message, step):
        for name in sorted(devices, key=len, reverse=True):
            if name and re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text):
                return _text(name)
    return None


def _read(path: Path) -> tuple[dict[str, Any], bool]:
    """Return the object in a JSON file, and whether it is there but damaged; empty where there is none.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}, False
    try:
        value = json.loads(data.decode("utf-8")) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        value = None
    return (value, False) if isinstance(value, dict) else ({}, True)


def _journal(place: Place) -> dict[str, Any]:
    """Return what the journal of a session without an end state says of it."""
    if place.central:
        return {}
    try:
        with open(place.path / METADATA / JOURNAL, "rb") as stream:
            lines = stream.read(_JOURNAL_BYTES).split(b"\n")
    except OSError:
        return {}
    for line in lines:
        try:
            event = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("event") == "session":
            return event
    return {}


def _started_by_name(place: Place) -> datetime:
    """Return when a session began that does not tell it itself: by its name, its day, or its folder's age."""
    match = _NAME.search(place.path.name)
    if match:
        try:
            return datetime(*map(int, match.groups())).astimezone()  # type: ignore[arg-type]
        except (ValueError, OverflowError, OSError):
            pass
    try:
        changed = datetime.fromtimestamp(place.path.stat().st_mtime, timezone.utc).astimezone()
    except (OSError, ValueError, OverflowError):
        changed = datetime.fromtimestamp(0, timezone.utc)
    if place.day is not None and place.day != changed.date():
        return datetime(place.day.year, place.day.month, place.day.day, tzinfo=changed.tzinfo)
    return changed


def _second(name: str) -> str:
    return name.replace(".json", "-2.json")


def _stamp_of(path: Path) -> str:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"{facts.st_mtime_ns}:{facts.st_size}"


def _has_log(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.startswith("launcher") and entry.name.endswith(".log") for entry in entries)


def _time(value: Any) -> datetime | None:
    """Return an ISO 8601 time with its offset; None for anything else, and for years that no rig has seen."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        return (time if time.tzinfo is not None else time.astimezone()) if 1970 <= time.year < 2200 else None
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: Any) -> str | None:
    """Return a value as text that every database takes, cut at a length that nobody reads to the end."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    text = text[:_MOST_CHARS].replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number - number == 0 else None


def _duration_s(end: Mapping[str, Any], started: datetime, stopped: datetime | None) -> float | None:
    """Return the measured duration; a session of an earlier version has its two times only."""
    if (measured := _number(end.get("duration_s"))) is not None:
        return measured
    return max(0.0, (stopped - started).total_seconds()) if stopped is not None else None


def _integer(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
    return value if good else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
