"""Lines for the session log after its session has ended: the log is the sidecar's then."""

from __future__ import annotations

from collections.abc import Iterable

from ..log import ExactMasker, LogWriter
from .view import SessionView


def append_late(view: SessionView, level: str, logger: str, text: str, secrets: Iterable[str]) -> None:
    """Append one record to the log of a session that has ended; the mirror's copy follows.

    Raises:
        OSError: the log cannot be written.
    """
    log = LogWriter(view.log_path)
    try:
        log.record(level, logger, ExactMasker(secrets)(text))
    finally:
        log.close()
