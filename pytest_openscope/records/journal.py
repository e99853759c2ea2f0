"""The session's journal: what a witness needs to finish a session whose process has died.

``launcher_metadata/journal.jsonl`` holds one JSON object a line, each handed to the operating system in one write before
:meth:`Journal.write` returns, so the file survives the death of its writer. Every object has ``event``, ``at`` (ISO 8601
with UTC offset) and ``mono`` (``time.monotonic()`` in seconds, comparable between processes of one boot).

What a full disk does not take goes into ``journal.jsonl.spare``, which holds its room from the start: a step's deadline that
is never taken back would end a healthy experiment, and an ending that is not on record would make it a crash.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from ..system import boot_id, is_deleted, json_bytes, keep_apart, now_iso, patiently, put_back

JOURNAL = "journal.jsonl"
#: Written by the process that runs the steps of post-acquisition that a dead session did not reach.
RESCUE_JOURNAL = "rescue.jsonl"
#: The sidecar's own journal, beside the session's: each file has one writer, since Windows has no atomic append. It is also
#: the file that a sidecar or a recovery locks as long as it sees to a session.
WITNESS_JOURNAL = "witness.jsonl"
_FLAGS = os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
#: About three hundred events, filled with newlines so that writing into it needs no new room.
_SPARE_BYTES = 64 * 1024
#: By so many bytes a reader tells the file that it knows from one that was emptied and has grown again.
_TAIL_BYTES = 64
#: Of the wall clock against the monotonic one in the time between an event and its reader.
_DRIFT_S = 5.0


def spare_path(journal: Path) -> Path:
    """Where the events of a full disk are."""
    return journal.with_name(journal.name + ".spare")


def drop_empty_spare(journal: Path) -> None:
    """Remove a spare file that holds no event, once nobody writes the journal any more."""
    spare = spare_path(journal)
    try:
        if not spare.read_bytes().strip():
            patiently(spare.unlink)
    except OSError:
        return


class Journal:
    """Appends events; never raises, since the experiment comes first: a failed write is counted in ``lost``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._lock = threading.RLock()
        self._fd: int | None = self._open()
        self._spared = 0
        self._full = False
        spare = spare_path(path)
        try:
            if spare.exists():
                # An earlier writer's; its events must stay.
                held = len(spare.read_bytes().rstrip(b"\n"))
                self._spared = held + 1 if held else 0
            else:
                spare.write_bytes(b"\n" * _SPARE_BYTES)
        except OSError:
            self._spared = _SPARE_BYTES

    def _open(self) -> int:
        return keep_apart(os.open(self.path, _FLAGS, 0o644))

    def _append(self, fd: int, data: bytes) -> bool:
        """Write one event; False when the disk took a part of it or none. The descriptor is made good where it is not."""
        try:
            if is_deleted(fd):
                self._renew(fd, deleted=True)
        except OSError as error:
            if error.errno == errno.EBADF:
                self._renew(fd)
        # Closed meanwhile by another thread, the journal drops the event.
        now = self._fd
        return now is None or os.write(now, data) == len(data)

    def _renew(self, fd: int, deleted: bool = False) -> None:
        """Replace a descriptor that leads nowhere; once, whichever threads find it out at the same moment."""
        with self._lock:
            if self._fd != fd:
                return
            if deleted:
                put_back(fd, self.path)
            self._fd = self._open()
            if deleted:
                os.close(fd)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event."""
        if self._fd is None:
            return
        line = {"event": event, "at": now_iso(), "mono": time.monotonic(), **fields}
        data = json_bytes(line, indent=None)
        try:
            # Once the disk was full, its events stay together: a later one in the journal would be read before them.
            self._full = self._full or not self._append(self._fd, data)
        except OSError:
            self._full = True
        if self._full and not self._save(data):
            self.lost += 1

    def _save(self, data: bytes) -> bool:
        """Keep an event in the spare room; when that is used up, try the journal again, behind a line that may be torn."""
        try:
            if self._spared + len(data) < _SPARE_BYTES:
                with open(spare_path(self.path), "r+b", buffering=0) as stream:
                    stream.seek(self._spared)
                    if stream.write(data) == len(data):
                        self._spared += len(data)
                        return True
            data, fd = b"\n" + data, self._fd
            return fd is not None and os.write(fd, data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; later events are dropped."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            drop_empty_spare(self.path)


class JournalReader:
    """Follows a journal while it grows; a torn last line waits until it is whole, a damaged one is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        #: The end of what was read; it stands before ``_offset`` as long as nobody empties the file.
        self._tail = b""
        self._rest = b""
        self._spare_offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the events that came since the last call; an unreadable file gives none."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self._offset - len(self._tail))
                data = stream.read()
                if not data.startswith(self._tail):
                    # Somebody emptied it; the events that come now stand at its beginning.
                    self._offset, self._tail, self._rest = 0, b"", b""
                    stream.seek(0)
                    data = stream.read()
        except OSError:
            return []
        data = data[len(self._tail) :]
        self._offset += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [event for line in lines if (event := _parse(line))] + self._read_spare()

    def _read_spare(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        try:
            with open(spare_path(self.path), "rb", buffering=0) as stream:
                stream.seek(self._spare_offset)
                first = stream.read(1)
                data = first + stream.read(_SPARE_BYTES) if first.strip() else b""
        except OSError:
            return events
        for line in data.split(b"\n"):
            event = _parse(line)
            if event is None:
                # The room behind the last event, or an event that is just being written.
                break
            self._spare_offset += len(line) + 1
            events.append(event)
        return events


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def boot_is_same(mono: float, at: str, boot: str = "") -> bool:
    """Tell whether a journal's monotonic times still mean something: they were written since the computer was started.

    The boot's name decides (:func:`.boot_id`). Where it is not known, the two clocks of an event do, which a clock that was
    set since, or a computer that slept, makes those of another boot.
    """
    if boot and (now := boot_id()):
        return boot == now
    try:
        written = datetime.fromisoformat(at).timestamp()
    except ValueError:
        return False
    return abs((time.time() - time.monotonic()) - (written - mono)) < _DRIFT_S
