"""Run laboratory experiments as pytest sessions: ``pytest --rig-config rig.yaml``.

The names in ``__all__`` are all that a lab imports; each is loaded when it is first asked for, so that a pytest run that is no
experiment pays nothing for them. Everything else in this package may change without notice.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .acquisition import (
        Acquisition,
        AcquisitionFailed,
        AcquisitionRun,
        AcquisitionSpec,
        AcquisitionTimeout,
        Adapter,
        Call,
        Finding,
        Task,
    )
    from .config import Rig
    from .devices import Devices, Driver
    from .fixtures import Experiment, LimitsExceeded
    from .issues import fingerprint_of, fingerprint_of_name, normalised
    from .log import LogEntry, last_lines, read_log
    from .modules import ModuleContext, ModuleFailed, Steps, archive_session
    from .records import AcquisitionFacts, ChainedException, Failure, Measurement, OnFailure, Outcome, Phase
    from .session import Operator

__version__ = "0.1.0"
#: Version of the OpenScope experimental launcher whose parameter files and session folders this package implements.
LAUNCHER_FORMAT_VERSION = "0.2.57"

_HOME = {
    "acquisition": (
        "Acquisition",
        "AcquisitionFailed",
        "AcquisitionRun",
        "AcquisitionSpec",
        "AcquisitionTimeout",
        "Adapter",
        "Call",
        "Finding",
        "Task",
    ),
    "config": ("Rig",),
    "devices": ("Devices", "Driver"),
    "fixtures": ("Experiment", "LimitsExceeded"),
    "issues": ("fingerprint_of", "fingerprint_of_name", "normalised"),
    "log": ("LogEntry", "last_lines", "read_log"),
    "modules": ("ModuleContext", "ModuleFailed", "Steps", "archive_session"),
    "records": ("AcquisitionFacts", "ChainedException", "Failure", "Measurement", "OnFailure", "Outcome", "Phase"),
    "session": ("Operator",),
}

__all__ = [
    "Acquisition",
    "AcquisitionFacts",
    "AcquisitionFailed",
    "AcquisitionRun",
    "AcquisitionSpec",
    "AcquisitionTimeout",
    "Adapter",
    "Call",
    "ChainedException",
    "Devices",
    "Driver",
    "Experiment",
    "Failure",
    "Finding",
    "LimitsExceeded",
    "LogEntry",
    "Measurement",
    "ModuleContext",
    "ModuleFailed",
    "OnFailure",
    "Operator",
    "Outcome",
    "Phase",
    "Rig",
    "Steps",
    "Task",
    "archive_session",
    "fingerprint_of",
    "fingerprint_of_name",
    "last_lines",
    "normalised",
    "read_log",
]


def __getattr__(name: str) -> Any:
    for room, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{room}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "LAUNCHER_FORMAT_VERSION", "__version__"]
