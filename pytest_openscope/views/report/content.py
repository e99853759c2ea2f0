"""What a session report shows, read from the session folder; what is missing or damaged there is left out, never an error."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from ...log import read_log
from ...records import DEBUG_STATE, END_STATE, METADATA
from ...system import read_json
from ..pages import PICTURES
from ..values import number_of, whole_text

#: More records than a browser should hold: the first and the last ones are shown, the rest is in the file.
MAX_RECORDS = 500_000
_FIRST_RECORDS = 50_000
#: Larger pictures are linked, not shown.
MAX_PICTURE_BYTES = 5_000_000
MAX_PICTURES_BYTES = 30_000_000
#: Sessions of the rig that a measurement is held against, and folders that are looked through for them.
HISTORY = 20
_LOOKED_THROUGH = 300


class SessionFiles:
    """The files of one session.

    Attributes:
        end, debug: content of ``end_state.json`` and ``debug_state.json``; empty without.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / METADATA
        self.end = self.object_in(END_STATE)
        self.debug = self.object_in(DEBUG_STATE)

    def object_in(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file."""
        return read_json(self.metadata / name) or {}

    def list_in(self, name: str) -> list[dict[str, Any]]:
        """Return the objects of a JSON file that holds a list of them."""
        try:
            found = json.loads((self.metadata / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def parameters(self) -> list[dict[str, str]]:
        """Return ``name``, ``value`` and ``source`` of the merged, expanded parameters, nested ones by dotted key."""
        values = self.object_in("processed_parameters.json") or self.object_in("input_parameters.json")
        sources = self.object_in("command_line_arguments.json").get("value_sources") or {}
        return [{"name": name, "value": value, "source": _source(sources, name)} for name, value in _leaves(values, "")]

    def attachments(self) -> list[dict[str, Any]]:
        """Return ``name`` and ``size_bytes`` of the attached files; pictures with a ``data:`` URL as long as there is room."""
        room, found = MAX_PICTURES_BYTES, []
        for name in self.end.get("attachments") or ():
            path = self.folder / str(name)
            one: dict[str, Any] = {"name": str(name), "size_bytes": None}
            with suppress(OSError):
                one["size_bytes"] = size = path.stat().st_size
                kind = mimetypes.guess_type(path.name)[0] or ""
                if kind in PICTURES and size <= min(MAX_PICTURE_BYTES, room):
                    one["picture"] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
                    room -= size
            found.append(one)
        return found

    def log(self) -> dict[str, Any]:
        """Return the session log in columns: ``t`` (ms since ``start``) and ``m`` (messages) of the records.

        ``l``, ``p``, ``s`` and ``g`` are indices into ``levels``, ``phases``, ``steps`` and ``loggers``; ``left_out`` counts
        the records in the middle that are in the file only. All is empty when there is no log.
        """
        names: dict[str, dict[str, int]] = {"levels": {}, "phases": {}, "steps": {}, "loggers": {}}
        rows: list[tuple[Any, ...]] = []
        relative = self.object_in("command_line_arguments.json").get("session_log")
        with suppress(OSError):
            for entry in read_log(self.folder / relative if relative else self.metadata / "launcher.log"):
                texts = (entry.level, entry.phase, entry.step, entry.logger)
                indices = [known.setdefault(text, len(known)) for known, text in zip(names.values(), texts, strict=True)]
                rows.append((entry.timestamp.timestamp(), *indices, whole_text(entry.message)))
        start = rows[0][0] if rows else 0.0
        left_out = max(0, len(rows) - MAX_RECORDS)
        del rows[_FIRST_RECORDS : _FIRST_RECORDS + left_out]
        times, *columns = zip(*rows, strict=True) if rows else [()] * 6
        return {
            "start": start,
            "left_out": left_out,
            "t": [round((at - start) * 1000, 1) for at in times],
            **dict(zip("lpsgm", columns, strict=True)),
            **{name: list(known) for name, known in names.items()},
        }

    def earlier_measurements(self) -> dict[str, list[float]]:
        """Return, by name, what the rig's last sessions measured, oldest first; dry runs are left out."""
        rig, start = self.end.get("rig_id"), str(self.end.get("start_time") or "")
        sessions = (
            (str(state.get("start_time") or ""), state.get("measurements") or ())
            for state in _neighbours(self.folder)
            if state.get("rig_id") == rig and not state.get("dry_run")
        )
        found: dict[str, list[float]] = {}
        last = islice((one for one in sessions if one[0] < start), HISTORY)
        for _, measurements in sorted(last, key=itemgetter(0)):
            for measurement in measurements:
                if (value := number_of(measurement.get("value"))) is not None:
                    found.setdefault(str(measurement.get("name")), []).append(value)
        return found


def _neighbours(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the end states of this session and those beside it, the newest first."""
    try:
        states = sorted(folder.parent.glob(f"*/{METADATA}/{END_STATE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return  # The disk, or one of the sessions, went away in this moment.
    for path in states[:_LOOKED_THROUGH]:
        if (state := read_json(path)) is not None:
            yield state


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
