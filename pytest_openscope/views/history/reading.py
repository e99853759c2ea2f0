"""From a session folder to rows of the history's tables; a damaged one becomes rows too, never an error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...issues import Sources, fingerprint_of, fingerprint_of_name
from ...records import DEBUG_STATE, END_STATE, JOURNAL, METADATA, Failure, JournalReader, Outcome, failures_in, from_json
from ..values import duration_s_of, number_of, time_of, whole_text

#: Columns of the tables, in the order in which rows have them, as DuckDB declares them. Parquet files have the same.
TABLES = {
    "sessions": "session_id BIGINT, session_uuid VARCHAR, rig_id VARCHAR, rig VARCHAR, date DATE, subject_id VARCHAR, "
    "user_id VARCHAR, started TIMESTAMP, duration_s DOUBLE, outcome VARCHAR, exit_code BIGINT, version VARCHAR, "
    "mirror VARCHAR, continues VARCHAR, lost_records BIGINT",
    "steps": "session_id BIGINT, position BIGINT, step VARCHAR, phase VARCHAR, kind VARCHAR, outcome VARCHAR, "
    "duration_s DOUBLE, attempts BIGINT",
    "failures": "session_id BIGINT, position BIGINT, fingerprint VARCHAR, kind VARCHAR, outcome VARCHAR, phase VARCHAR, "
    "step VARCHAR, device VARCHAR, exception_type VARCHAR, message VARCHAR, issue_url VARCHAR",
    "measurements": "session_id BIGINT, position BIGINT, measurement VARCHAR, value DOUBLE, text VARCHAR, unit VARCHAR, "
    "minimum DOUBLE, maximum DOUBLE, passed BOOLEAN, step VARCHAR",
    "devices": "session_id BIGINT, device VARCHAR, driver VARCHAR, simulated VARCHAR",
}
#: Outcomes of the history beside those of sessions: no end state (yet), one that cannot be read, one that tells none.
UNFINISHED, DAMAGED, UNKNOWN = "unfinished", "damaged", "unknown"
#: Kinds of folders: of what they hold, only a session's is in the tables.
SESSION, DRY_RUN = "session", "dry run"
_MOST_CHARS = 2000
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

    def files(self) -> tuple[Path, Path]:
        """Return where the end state and the debug state are: a copy in a central directory has no ``launcher_metadata``."""
        folder = self.path / METADATA if self.day is None else self.path
        end, debug = folder / END_STATE, folder / DEBUG_STATE
        # Where the name was somebody else's already, the mirror counts its files.
        second = end.with_name(f"{end.stem}-2.json")
        return (second, debug.with_name(f"{debug.stem}-2.json")) if not end.exists() and second.exists() else (end, debug)

    def stamp(self) -> str | None:
        """Return what changes whenever the session's states do; None where this is no session.

        Raises:
            OSError: the folder cannot be looked at.
        """
        stamps = [_stamp_of(path) for path in self.files()]
        if any(stamps):
            return " ".join(stamps)
        if self.day is None:
            begun = (self.path / METADATA).is_dir()
        else:
            begun = any(fnmatch(one.name, "launcher*.log") for one in self.path.iterdir())
        return " " if begun else None


@dataclass
class Rows:
    """One folder as rows.

    Attributes:
        place, stamp: the folder, and its :meth:`Place.stamp` when it was read.
        kind: ``session`` or ``dry run``.
        settled: it has ended for good; only a rescue or a continuation changes it later.
        tables: rows by table, values in the order of :data:`TABLES`; none of a dry run.
    """

    place: Place
    stamp: str
    kind: str
    session_id: int
    day: date
    rig: str
    settled: bool
    tables: dict[str, list[tuple[Any, ...]]]


def read_session(place: Place, stamp: str) -> Rows:
    """Read a session folder.

    Raises:
        OSError: a file is there and cannot be read now.
    """
    end_path, debug_path = place.files()
    end, damaged = _read(end_path)
    debug, _ = _read(debug_path)
    known = end or _begun(place.path)
    rig_id = _text(known.get("rig_id") or _mapping(known.get("rig_config")).get("rig_id")) or place.rig or UNKNOWN
    started = _started(known, place)
    day, rig = started.date(), partition_name(rig_id)
    uuid = _text(known.get("session_uuid")) or _label(place.path.name)
    outcome = _outcome(end, debug, damaged)
    settled = outcome not in (UNFINISHED, DAMAGED)
    if known.get("dry_run") is True:
        # It may have the name of a real one.
        return Rows(place, stamp, DRY_RUN, session_id(rig_id, f"{DRY_RUN}\x1f{uuid}", day), day, rig, settled, {})
    number = session_id(rig_id, uuid, day)
    subject_id, user_id = _text(known.get("subject_id")), _text(known.get("user_id"))
    devices = _mapping(end.get("devices"))
    session = (
        number,
        uuid,
        rig_id,
        rig,
        day,
        subject_id,
        user_id,
        started.astimezone(timezone.utc).replace(tzinfo=None),
        duration_s_of(end),
        outcome,
        _integer(end.get("exit_code")),
        _text(end.get("version")),
        _text(_mapping(end.get("mirror")).get("status")),
        _text(_mapping(end.get("continues")).get("session_uuid")),
        _integer(end.get("lost_records")) or 0,
    )
    private = [name for name in (uuid, rig_id, subject_id, user_id) if name]
    tables = {
        "sessions": [session],
        "steps": _steps(number, end),
        "failures": _failures(number, end, debug, private, devices),
        "measurements": _measurements(number, end),
        "devices": [
            (number, _text(name), _text(one.get("driver")), _text(one.get("simulated")))
            for name, one in devices.items()
            if isinstance(one, dict)
        ],
    }
    return Rows(place, stamp, SESSION, number, day, rig, settled, tables)


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
        names = (_label(one.get("name")), _label(one.get("phase")), _text(one.get("kind")) or "test")
        outcome = _text(one.get("outcome")) or "skipped"
        attempts = len(_objects(one.get("attempts"))) + 1
        found.append((number, position, *names, outcome, number_of(one.get("duration_s")), attempts))
    return found


def _measurements(number: int, end: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    found = []
    for position, one in enumerate(_objects(end.get("measurements"))):
        value, passed = number_of(one.get("value")), one.get("passed")
        text = _text(one.get("value")) if value is None else None
        limits = number_of(one.get("minimum")), number_of(one.get("maximum"))
        judged = passed if isinstance(passed, bool) else None
        named, unit, step = (_label(one.get(key)) for key in ("name", "unit", "step"))
        found.append((number, position, named, value, text, unit, *limits, judged, step))
    return found


def _failures(
    number: int, end: Mapping[str, Any], debug: Mapping[str, Any], private: Sequence[str], devices: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Return the failures, each with its fingerprint: that of its report where one was made, else computed in the same way."""
    whole = _whole_failures(end, debug)
    reports = [one for one in _objects(_mapping(debug.get("github")).get("reports")) if isinstance(one.get("fingerprint"), str)]
    sources = Sources(_label(_mapping(debug.get("platform")).get("python")))
    prints = []
    for failure in whole:
        try:
            prints.append(fingerprint_of(failure, private, sources))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            # A damaged file whose values are of other kinds than the names say.
            prints.append(fingerprint_of_name(f"{failure.kind} {failure.phase} {failure.step} {failure.exception_type}"))
    if len(reports) == 1 and len(set(prints)) == 1:
        # The session's own computer knew more: its sources, the names of the machine.
        prints = [_label(reports[0]["fingerprint"])] * len(prints)
    urls = {str(one["fingerprint"]): _text(one.get("issue_url")) for one in reports}
    found = []
    for position, (failure, fingerprint) in enumerate(zip(whole, prints, strict=True)):
        kind, step, name, message = map(_label, (failure.kind, failure.step, failure.exception_type, failure.message))
        phase, device = str(failure.phase or ""), _device_in(devices, message, step)
        found.append(
            (
                number,
                position,
                fingerprint,
                kind,
                str(failure.outcome),
                phase,
                step,
                device,
                name,
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
    for one in brief:
        texts = {key: _label(one.get(key)) for key in ("kind", "outcome", "step", "exception_type", "message", "phase")}
        try:
            whole.append(from_json("failures", texts))
        except ValueError:  # an outcome or a phase of another version
            whole.append(from_json("failures", {**texts, "outcome": "error", "phase": ""}))
    return whole


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
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}, False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    return (value, False) if isinstance(value, dict) else ({}, True)


def _begun(folder: Path) -> dict[str, Any]:
    """Return what the journal of a session without an end state says of it."""
    events = JournalReader(folder / METADATA / JOURNAL).read()
    return next((event for event in events if event["event"] == "session"), {})


def _started(known: Mapping[str, Any], place: Place) -> datetime:
    """Return when a session began: as it tells itself, else by its folder's name, its day, or its folder's age."""
    named = _NAME.search(place.path.name)
    told = (
        known.get("start_time") or known.get("started"),
        named.expand(r"\1-\2-\3T\4:\5:\6") if named else None,
        str(place.day),
    )
    times = [time for text in told if (time := time_of(text)) is not None]
    return times[0] if times else datetime.fromtimestamp(place.path.stat().st_mtime).astimezone()


def _stamp_of(path: Path) -> str:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"{facts.st_mtime_ns}:{facts.st_size}"


def _text(value: Any) -> str | None:
    """Return a value as text that every database takes, cut at a length that nobody reads to the end."""
    return None if value is None else whole_text(str(value)[:_MOST_CHARS].replace("\0", "\\x00"))


def _label(value: Any) -> str:
    return _text(value) or ""


def _integer(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
    return value if good else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
