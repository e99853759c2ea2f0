"""Notes in the rig's state directory for the next session: of sessions not finished, and of those that died."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..system import read_json, remove_file, write_json

UNFINISHED = "unfinished"
CRASHED = "crashed"


def mark_unfinished(
    state_directory: Path,
    session_uuid: str,
    session_folder: Path,
    mirror_directory: str | None = None,
    session: Mapping[str, Any] | None = None,
) -> Path:
    """Leave a note of a session that is not finished; written at its start, and again by its sidecar.

    Args:
        session: fields of the journal's ``session`` event, for a session that dies before it has a journal.

    Raises:
        OSError: the state directory cannot be written.
    """
    facts: dict[str, Any] = {"session_folder": str(session_folder), "mirror_directory": mirror_directory}
    return _leave(state_directory / UNFINISHED, session_uuid, facts if session is None else {**facts, "session": dict(session)})


def unmark(state_directory: Path, session_uuid: str) -> None:
    """Take the note away: nothing of this session is owed to anybody."""
    with contextlib.suppress(OSError):
        remove_file(state_directory / UNFINISHED / f"{session_uuid}.json")


def mark_crashed(state_directory: Path, session_uuid: str, outcome: str, unsafe: Iterable[str], see: Path) -> None:
    """Leave a note of a session that died, for the people at the rig; devices in an earlier note of it stay.

    Args:
        unsafe: names of devices that may not be safe.
        see: the file or folder that tells more.

    Raises:
        OSError: the state directory cannot be written.
    """
    earlier = (read_json(state_directory / CRASHED / f"{session_uuid}.json") or {}).get("unsafe", ())
    facts = {
        "session_uuid": session_uuid,
        "outcome": outcome,
        "unsafe": list(dict.fromkeys([*earlier, *unsafe])),
        "see": str(see),
    }
    _leave(state_directory / CRASHED, session_uuid, facts)


def crashed(state_directory: Path) -> list[tuple[Path, str]]:
    """Return each note of a session that died with what it says, oldest first; the caller removes what it has told."""
    found = []
    for path, facts in notes(state_directory / CRASHED):
        told = f"; {', '.join(facts['unsafe'])} may not be safe" if facts.get("unsafe") else ""
        found.append((path, f"session {facts.get('session_uuid')} {facts.get('outcome')}{told}: see {facts.get('see')}"))
    return found


def _leave(folder: Path, name: str, facts: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_json(path, facts)
    return path


def notes(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each note with its content, oldest first; unreadable ones are passed over."""
    try:
        paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    except OSError:
        return
    for path in paths:
        facts = read_json(path)
        if facts is not None:
            yield path, facts
