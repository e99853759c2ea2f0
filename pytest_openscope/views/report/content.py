"""What a session report shows, read from the session folder; what is missing or damaged there is left out, never an error."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ...log import read_log
from ...records import DEBUG_STATE, END_STATE, METADATA
from ...system import read_json

#: More records than a browser should hold: the first and the last ones are shown, the rest is in the file.
MAX_RECORDS = 500_000
_FIRST_RECORDS = 50_000
#: Larger pictures are linked, not shown.
MAX_PICTURE_BYTES = 5_000_000
MAX_PICTURES_BYTES = 30_000_000
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/bmp")
#: Sessions of the rig that a measurement is held against, and folders that are looked through for them.
HISTORY = 20
_LOOKED_THROUGH = 300


@dataclass
class Log:
    """The session log in columns, as the page takes it: names once, records by their index.

    ``left_out`` counts the records in the middle that are in the file only.
    """

    start: float = 0.0
    levels: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    loggers: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=lambda: [[], [], [], [], [], []])
    left_out: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return columns ``t`` (ms since ``start``), ``l``, ``p``, ``s``, ``g`` (indices) and ``m`` (messages)."""
        names = {"levels": self.levels, "phases": self.phases, "steps": self.steps, "loggers": self.loggers}
        return {"start": self.start, **names, **dict(zip("tlpsgm", self.rows, strict=True)), "left_out": self.left_out}


@dataclass(frozen=True)
class Attachment:
    """A file of the session: ``picture`` is a ``data:`` URL where it is one that can be shown, else empty."""

    name: str
    size_bytes: int | None
    picture: str = ""


@dataclass(frozen=True)
class Parameter:
    """One value with what set it."""

    name: str
    value: str
    source: str


class SessionFiles:
    """The files of one session.

    Attributes:
        end, debug: content of ``end_state.json`` and ``debug_state.json``; empty without.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / METADATA
        self.end: dict[str, Any] = read_json(self.metadata / END_STATE) or {}
        self.debug: dict[str, Any] = read_json(self.metadata / DEBUG_STATE) or {}

    def list_in(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON file that holds a list of them."""
        try:
            found = json.loads((self.metadata / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def samples(self) -> list[dict[str, Any]]:
        """Return the resource samples."""
        return [one for one in self.list_in("resource_usage.json") if time_of(one.get("timestamp")) is not None]

    def changes(self) -> list[str]:
        """Return what had changed on the rig since its last good session, a line each."""
        found = (read_json(self.metadata / "changes_since_last_good.json") or {}).get("lines")
        return [str(line) for line in found] if isinstance(found, list) else []

    def parameters(self) -> list[Parameter]:
        """Return the merged, expanded parameters, nested ones by dotted key."""
        values = (
            read_json(self.metadata / "processed_parameters.json") or read_json(self.metadata / "input_parameters.json") or {}
        )
        sources = (read_json(self.metadata / "command_line_arguments.json") or {}).get("value_sources") or {}
        return [Parameter(name, value, _source(sources, name)) for name, value in _leaves(values, "")]

    def attachments(self) -> list[Attachment]:
        """Return the attached files, pictures with their content as long as there is room."""
        room, found = MAX_PICTURES_BYTES, []
        for name in self.end.get("attachments") or ():
            path = self.folder / str(name)
            try:
                size = path.stat().st_size
                kind = mimetypes.guess_type(path.name)[0] or ""
                picture = ""
                if kind in _PICTURES and size <= min(MAX_PICTURE_BYTES, room):
                    picture = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
                    room -= size
                found.append(Attachment(str(name), size, picture))
            except OSError:
                found.append(Attachment(str(name), None))
        return found

    def log(self) -> Log:
        """Return the session log; empty when there is none."""
        log = Log()
        names: dict[str, dict[str, int]] = {"levels": {}, "phases": {}, "steps": {}, "loggers": {}}
        relative = (read_json(self.metadata / "command_line_arguments.json") or {}).get("session_log")
        path = self.folder / str(relative) if relative else self.metadata / "launcher.log"
        try:
            for entry in read_log(path):
                at = entry.timestamp.timestamp()
                log.start = log.start or at
                texts = (entry.level, entry.phase, entry.step, entry.logger)
                row = [round((at - log.start) * 1000, 1)]
                row += [known.setdefault(text, len(known)) for known, text in zip(names.values(), texts, strict=True)]
                for column, value in zip(log.rows, [*row, _whole_text(entry.message)], strict=True):
                    column.append(value)
        except OSError:
            pass
        for name, known in names.items():
            setattr(log, name, list(known))
        if (surplus := len(log.rows[0]) - MAX_RECORDS) > 0:
            for column in log.rows:
                del column[_FIRST_RECORDS : _FIRST_RECORDS + surplus]
            log.left_out = surplus
        return log

    def earlier_measurements(self) -> dict[str, list[float]]:
        """Return, by name, what the rig's last sessions measured, oldest first; dry runs are left out."""
        rig, start = self.end.get("rig_id"), str(self.end.get("start_time") or "")
        sessions: list[tuple[str, dict[str, Any]]] = []
        for state in _neighbours(self.folder):
            began = str(state.get("start_time") or "")
            if state.get("rig_id") == rig and not state.get("dry_run") and began < start:
                sessions.append((began, state))
                if len(sessions) == HISTORY:
                    break
        found: dict[str, list[float]] = {}
        for _, state in sorted(sessions, key=lambda one: one[0]):
            for measurement in state.get("measurements") or ():
                value = measurement.get("value")
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    found.setdefault(str(measurement.get("name")), []).append(value)
        return found


def _neighbours(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the end states of the sessions beside this one, the newest first."""

    def changed(other: Path) -> float:
        try:
            return (other / METADATA / END_STATE).stat().st_mtime
        except OSError:
            return 0.0

    try:
        others = sorted(((changed(other), other) for other in folder.parent.iterdir() if other != folder), reverse=True)
    except OSError:
        return
    for stamp, other in others[:_LOOKED_THROUGH]:
        if stamp and (state := read_json(other / METADATA / END_STATE)) is not None:
            yield state


def time_of(text: Any) -> datetime | None:
    """Return an ISO 8601 time; None for anything else."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _whole_text(message: str) -> str:
    """Return a message without the lone surrogates that stand for a program's odd bytes, which no UTF-8 page can hold."""
    return message.encode("utf-8", "backslashreplace").decode("utf-8") if not message.isascii() else message


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _source(sources: Mapping[str, Any], name: str) -> str:
    probe = name
    while probe not in sources and "." in probe:
        probe = probe.rpartition(".")[0]
    return str(sources.get(probe, ""))
