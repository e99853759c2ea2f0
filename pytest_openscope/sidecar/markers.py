"""Notes in the rig's state directory of sessions that are not finished, so that the next session can find them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..folder import write_json

UNFINISHED = "unfinished"


def mark_unfinished(
    state_directory: Path, session_uuid: str, session_folder: Path, mirror_directory: str | None = None
) -> Path:
    """Leave the note; written at a session's start, and again by its sidecar.

    Raises:
        OSError: the state directory cannot be written.
    """
    path = state_directory / UNFINISHED / f"{session_uuid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"session_folder": str(session_folder), "mirror_directory": mirror_directory})
    return path


def unmark(state_directory: Path, session_uuid: str) -> None:
    """Take the note away: nothing of this session is owed to anybody."""
    try:
        (state_directory / UNFINISHED / f"{session_uuid}.json").unlink(missing_ok=True)
    except OSError:
        return


def marked(state_directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each note with its content, oldest first; unreadable ones are passed over."""
    try:
        paths = sorted((state_directory / UNFINISHED).glob("*.json"), key=lambda path: path.stat().st_mtime)
    except OSError:
        return
    for path in paths:
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict) and isinstance(facts.get("session_folder"), str):
            yield path, facts
