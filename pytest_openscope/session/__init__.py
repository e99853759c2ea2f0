"""One session from opening to end."""

from __future__ import annotations

from .operator import (
    Operator,
    terminal_is_there,
)
from .options import (
    add_options,
    rig_config_of,
)
from .run import (
    ExperimentRun,
)
from .session import (
    ExperimentSession,
)
from .steps import (
    session_of,
)

__all__ = [
    "ExperimentRun",
    "ExperimentSession",
    "Operator",
    "add_options",
    "rig_config_of",
    "session_of",
    "terminal_is_there",
]
