"""What people look at: the terminal and annotations."""

from __future__ import annotations

from .annotations import (
    annotate,
    command,
)
from .summary import (
    write_summary,
)

__all__ = [
    "annotate",
    "command",
    "write_summary",
]
