"""Reports that are answered after their session's end: the central mirror's copy of ``debug_state.json`` follows.

The share is touched by a sidecar of that session only, never from here. Until it is done a note stands in ``unfinished/``, so
that the rig's next session takes it up again; meanwhile ``end_state.json`` says how the mirror stands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .markers import mark_unfinished
from .recovery import REFRESHED_AT_ONCE, start_finisher
from .view import SessionView


class LateAnswers:
    """Lets the copies of sessions follow whose ``debug_state.json`` changed after their mirror was complete.

    Args:
        own: folder of a session that sees to its own copy.

    Attributes:
        started: names of the sessions whose copy is on its way; the others are left to the rig's next session.
    """

    def __init__(self, secrets: Iterable[str] = (), own: Path | None = None) -> None:
        self.secrets = frozenset(secrets)
        self.own = own
        self.started: list[str] = []
        self._again: list[Path] = []

    def written(self, debug_state: Path, answer: Mapping[str, Any]) -> None:
        """Take up a change; that a report still waits is not worth a copy."""
        folder = debug_state.parent.parent
        if folder == self.own or answer.get("status") == "queued":
            return
        view = SessionView(folder)
        view.read()
        state, mirror = view.state_directory, view.value("mirror_directory")
        if state is None or not mirror or not view.finished:
            return
        try:
            mark_unfinished(state, str(view.value("session_uuid", folder.name)), folder, mirror)
        except OSError as error:
            print(f"{folder.name}: the note on its mirror cannot be written: {error}", file=sys.stderr)
        if folder.name not in self.started:
            self._start(folder)
        elif folder not in self._again:
            self._again.append(folder)

    def close(self) -> None:
        """See to the sessions that changed once more after theirs had begun."""
        for folder in self._again:
            self.started.remove(folder.name)
            self._start(folder)
        self._again.clear()

    def _start(self, folder: Path) -> None:
        if len(self.started) >= REFRESHED_AT_ONCE:
            return
        try:
            start_finisher(folder, self.secrets)
        except OSError as error:
            print(f"{folder.name}: its mirror is left to the next session: {error}", file=sys.stderr)
            return
        self.started.append(folder.name)
