"""What people hand to a running session from another process, one file each in ``launcher_metadata/inbox/``.

A file is there until the session's sidecar has taken it: to the experiment while that lives, else into the session's record.
Its ``type`` is ``note`` (``text``), ``answer`` (to a question: ``question``, ``text``) or ``stop`` (as one Ctrl-C).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..system import patiently, read_json, remove_file, write_atomic
from .folder import METADATA

INBOX = "inbox"
_LOOK_S = 0.05


def hand_over(folder: Path, timeout_s: float, **message: Any) -> bool:
    """Hand a message to a running session; False when nobody has taken it in time, and it is withdrawn then.

    Raises:
        OSError: the session folder cannot be written.
    """
    inbox = folder / METADATA / INBOX
    inbox.mkdir(exist_ok=True)
    path = inbox / f"{time.time_ns()}-{uuid.uuid4().hex}.json"
    write_atomic(path, json.dumps(message).encode("ascii"))
    deadline = time.monotonic() + timeout_s
    while path.exists():
        if time.monotonic() > deadline:
            try:
                patiently(path.unlink)
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
        remove_file(path)
