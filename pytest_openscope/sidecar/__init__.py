"""The helper process: mirror, witness, resource samples, outbox."""

from __future__ import annotations

from .client import (
    SidecarClient,
)
from .late_reports import (
    LateAnswers,
)
from .markers import (
    crashed,
    mark_unfinished,
)
from .recovery import (
    recover,
)

__all__ = [
    "LateAnswers",
    "SidecarClient",
    "crashed",
    "mark_unfinished",
    "recover",
]
