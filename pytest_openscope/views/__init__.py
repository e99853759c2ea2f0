"""What people look at: the terminal during and after a session, annotations in CI, the report of a session, the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .annotations import annotate, command
from .live import LiveServer, missing_packages, parse_address
from .report import write_report
from .summary import write_summary
from .terminal import Progress, Stopping, TerminalView

if TYPE_CHECKING:
    from .history import HistoryError, HistorySource, answer_history, history_database, history_tables, write_history_page

__all__ = [
    "HistoryError",
    "HistorySource",
    "LiveServer",
    "Progress",
    "Stopping",
    "TerminalView",
    "annotate",
    "answer_history",
    "command",
    "history_database",
    "history_tables",
    "missing_packages",
    "parse_address",
    "write_history_page",
    "write_report",
    "write_summary",
]


def __getattr__(name: str) -> Any:
    # Every session imports this room, and none needs the history.
    if name in __all__:
        from . import history

        return getattr(history, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
