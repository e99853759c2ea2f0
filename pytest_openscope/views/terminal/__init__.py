"""What a terminal shows while a session runs: an area at its foot, or plain lines where there is none."""

from __future__ import annotations

from .content import Progress, Stopping
from .view import TerminalView

__all__ = ["Progress", "Stopping", "TerminalView"]
