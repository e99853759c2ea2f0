"""Running, watching and stopping the programs that acquire data."""

from __future__ import annotations

from .api import Acquisition
from .commands import build_spec, check_parameters, default_spec, describe_command, repository_folder
from .failures import AcquisitionFailed, AcquisitionTimeout
from .output import replay
from .run import AcquisitionRun
from .simulated import Fault, parse_fault
from .spec import AcquisitionSpec

__all__ = [
    "Acquisition",
    "AcquisitionFailed",
    "AcquisitionRun",
    "AcquisitionSpec",
    "AcquisitionTimeout",
    "Fault",
    "build_spec",
    "check_parameters",
    "default_spec",
    "describe_command",
    "parse_fault",
    "replay",
    "repository_folder",
]
