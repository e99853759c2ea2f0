"""Notes in the rig's state directory for the next session: of sessions not finished, and of those that died."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..system import write_json

UNFINISHED = "unfinished"
CRASHED = "crashed"


def mark_unfinished(
    state_directory: Path,
    session_uuid: str,
    session_folder: Path,
    mirror_directory: str | None = None,
    session: Mapping[str, Any] | None = None,
) -> Path:
    """Leave the note; written at a session's start, and again by its sidecar.

    Args:
        session: fields of the journal's ``session`` event, for a session that dies before it has a journal.

    Raises:
        OSError: the state directory cannot be written.
    """
    path = state_directory / UNFINISHED / f"{session_uuid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"session_folder": str(session_folder), "mirror_directory": mirror_directory}
    write_json(path, facts if session is None else {**facts, "session": dict(session)})
    return path


def unmark(state_directory: Path, session_uuid: str) -> None:
    """Take the note away: nothing of this session is owed to anybody."""
    try:
        (state_directory / UNFINISHED / f"{session_uuid}.json").unlink(missing_ok=True)
    except OSError:
        return


def mark_crashed(state_directory: Path, session_uuid: str, outcome: str, unsafe: Iterable[str], see: Path) -> None:
    """Leave a note of a session that died, for the people at the rig; devices in an earlier note of it stay.

    Args:
        unsafe: names of devices that may not be safe.
        see: the file or folder that tells more.

    Raises:
        OSError: the state directory cannot be written.
    """
    path = state_directory / CRASHED / f"{session_uuid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = next((facts for other, facts in _notes(path.parent) if other == path), {})
    earlier = before.get("unsafe")
    names = list(dict.fromkeys([*(map(str, earlier) if isinstance(earlier, list) else ()), *unsafe]))
    write_json(path, {"session_uuid": session_uuid, "outcome": outcome, "unsafe": names, "see": str(see)})


def crashed(state_directory: Path) -> list[tuple[Path, str]]:
    """Return each note of a session that died with what it says, oldest first; the caller removes what it has told."""
    found = []
    for path, facts in _notes(state_directory / CRASHED):
        unsafe = facts.get("unsafe") or []
        told = f"; {', '.join(map(str, unsafe))} may not be safe" if isinstance(unsafe, list) and unsafe else ""
        found.append((path, f"session {facts.get('session_uuid')} {facts.get('outcome')}{told}: see {facts.get('see')}"))
    return found


def marked(state_directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each note of an unfinished session with its content, oldest first; unreadable ones are passed over."""
    for path, facts in _notes(state_directory / UNFINISHED):
        if isinstance(facts.get("session_folder"), str):
            yield path, facts


def _notes(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    except OSError:
        return
    for path in paths:
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict):
            yield path, facts
