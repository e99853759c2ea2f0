"""What a terminal shows while a session runs: an area at its foot, or plain lines where there is none."""

from .content import Progress, Shown, Stopping
from .view import TerminalView
