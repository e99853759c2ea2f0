"""What people look at: the terminal's last lines, annotations in CI, the report of a session."""

from __future__ import annotations

from .annotations import annotate, command
from .report import write_report
from .summary import write_summary

__all__ = ["annotate", "command", "write_report", "write_summary"]
