"""What people hand to a running session from another process: notes. One file each in ``launcher_metadata/inbox/``.

A file is there until the session's sidecar has taken it: to the experiment while that lives, else into the session's record.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..records import METADATA
from ..system import read_json, write_atomic
from .notes import UNFINISHED, notes
from .reconstruct import SessionView, is_running

INBOX = "inbox"
_LOOK_S = 0.05


def running_sessions(state_directories: Iterable[Path]) -> list[SessionView]:
    """Return the sessions of these rigs that run on this computer now."""
    found: dict[Path, SessionView] = {}
    for state in state_directories:
        for _, facts in notes(state / UNFINISHED):
            folder = Path(str(facts.get("session_folder") or ""))
            view = SessionView.of(folder)
            if view.session is not None and view.ended is None and is_running(view.session):
                found[folder] = view
    return list(found.values())


def hand_note(folder: Path, text: str, timeout_s: float) -> bool:
    """Hand a note to a running session; False when nobody has taken it in time, and it is withdrawn then.

    Raises:
        OSError: the session folder cannot be written.
    """
    inbox = folder / METADATA / INBOX
    inbox.mkdir(exist_ok=True)
    path = inbox / f"{time.time_ns()}-{uuid.uuid4().hex}.json"
    write_atomic(path, json.dumps({"type": "note", "text": text}).encode("ascii"))
    deadline = time.monotonic() + timeout_s
    while path.exists():
        if time.monotonic() > deadline:
            try:
                path.unlink()
            except FileNotFoundError:
                break  # taken at the last moment
            return False
        time.sleep(_LOOK_S)
    return True


def take(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what has come, oldest first; each is taken once this goes on to the next one."""
    inbox = folder / METADATA / INBOX
    try:
        paths = sorted(path for path in inbox.iterdir() if path.suffix == ".json")
    except OSError:
        return
    for path in paths:
        message = read_json(path)
        if message is not None:
            yield message
        path.unlink(missing_ok=True)
