"""One session from opening to end.

The plugin is loaded in every pytest run on a computer: all but the options is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .options import add_options, rig_config_of

if TYPE_CHECKING:
    from .as_run import file_today, masker_of, read_as_run
    from .configuring import ExperimentRun
    from .operator import Operator
    from .session import ExperimentSession
    from .step_tools import acquisition_of, devices_of, steps_of
    from .steps import session_of

__all__ = [
    "ExperimentRun",
    "ExperimentSession",
    "Operator",
    "acquisition_of",
    "add_options",
    "devices_of",
    "file_today",
    "masker_of",
    "read_as_run",
    "rig_config_of",
    "session_of",
    "steps_of",
]

_HOME = {
    "ExperimentRun": "configuring",
    "ExperimentSession": "session",
    "Operator": "operator",
    "acquisition_of": "step_tools",
    "devices_of": "step_tools",
    "file_today": "as_run",
    "masker_of": "as_run",
    "read_as_run": "as_run",
    "session_of": "steps",
    "steps_of": "step_tools",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
