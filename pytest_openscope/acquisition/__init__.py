"""Running, watching and stopping the programs that acquire data.

The names below are loaded when they are first asked for, so that the sidecar pays only for what it uses."""

from __future__ import annotations

from .api import (
    Acquisition,
)
from .commands import (
    build_spec,
    check_parameters,
    default_spec,
    describe_command,
    repository_folder,
)
from .output import (
    replay,
)
from .run import (
    AcquisitionRun,
)
from .simulated import (
    Fault,
    SimulatedRun,
    parse_fault,
)
from .spec import (
    AcquisitionFailed,
    AcquisitionSpec,
    AcquisitionTimeout,
)

__all__ = [
    "Acquisition",
    "AcquisitionFailed",
    "AcquisitionRun",
    "AcquisitionSpec",
    "AcquisitionTimeout",
    "Fault",
    "SimulatedRun",
    "build_spec",
    "check_parameters",
    "default_spec",
    "describe_command",
    "parse_fault",
    "replay",
    "repository_folder",
]
