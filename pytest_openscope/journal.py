"""The session's journal: what a witness needs to finish a session whose process has died.

``launcher_metadata/journal.jsonl`` holds one JSON object a line, each handed to the operating system in one write before
:meth:`Journal.write` returns, so the file survives the death of its writer. Every object has ``event``, ``at`` (ISO 8601
with UTC offset) and ``mono`` (``time.monotonic()`` in seconds, comparable between processes of one boot).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
_ENCODE = json.JSONEncoder(default=str).encode
#: Events that the sidecar may read when it looks next (every 0.2 s): waking it a thousand times costs the experiment its core.
_UNHURRIED = frozenset({"step_started", "step_finished", "step_resumed", "acquisition_batch", "failure"})


def now_iso() -> str:
    """Return the local time with microseconds and UTC offset."""
    return datetime.now().astimezone().isoformat(timespec="microseconds")


class Journal:
    """Appends events; never raises, since the experiment comes first: a failed write is counted in ``lost``."""

    def __init__(self, path: Path, nudge: Callable[[], None] | None = None) -> None:
        self.path = path
        self.nudge = nudge
        self.lost = 0
        self._fd: int | None = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event and wake the sidecar."""
        if self._fd is None:
            return
        line = {"event": event, "at": now_iso(), "mono": time.monotonic(), **fields}
        data = _ENCODE(line).encode("ascii") + b"\n"
        try:
            if os.write(self._fd, data) != len(data):
                self.lost += 1
                os.write(self._fd, b"\n")
        except OSError:
            self.lost += 1
        if self.nudge is not None and event not in _UNHURRIED:
            self.nudge()

    def close(self) -> None:
        """Close the file; later events are dropped."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class JournalReader:
    """Follows a journal while it grows; a torn last line waits until it is whole, a damaged one is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the events that came since the last call; an unreadable file gives none."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except OSError:
            return []
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                events.append(event)
        return events


def boot_is_same(mono: float, at: str) -> bool:
    """Tell whether a journal's clock pair belongs to this boot, so that its monotonic times still mean something."""
    if sys.platform == "win32":
        drift_s = 5.0
    else:
        drift_s = 2.0
    try:
        written = datetime.fromisoformat(at).timestamp()
    except ValueError:
        return False
    return abs((time.time() - time.monotonic()) - (written - mono)) < drift_s
