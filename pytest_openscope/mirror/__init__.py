"""The central mirror of the session log."""

from __future__ import annotations

from .audit import audit_day_log
from .control import MirrorStatus, MirrorSupervisor
from .files import LOG_NAME, MirrorJob
