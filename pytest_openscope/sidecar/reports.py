"""Reports of a session that has ended: built from ``debug_state.json``, put into the rig's outbox, sent from there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .view import SessionView


def send_reports(view: SessionView, secrets: Iterable[str]) -> list[dict[str, Any]]:
    """Build and queue this session's reports, send what the outbox holds, and return the answers for this session."""
    return []
