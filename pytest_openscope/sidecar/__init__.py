"""The helper process: mirror, witness, resource samples, outbox."""

from __future__ import annotations

from .link import (
    SidecarClient,
)
from .notes import (
    crashed,
    mark_unfinished,
)
from .recovery import (
    recover,
)
from .reports import (
    LateAnswers,
)

__all__ = [
    "LateAnswers",
    "SidecarClient",
    "crashed",
    "mark_unfinished",
    "recover",
]
