"""Running, watching and stopping the programs that acquire data."""

from __future__ import annotations

from .api import Acquisition
from .commands import build_spec, check_parameters, default_spec, describe_command, repository_folder
from .failures import AcquisitionFailed, AcquisitionTimeout
from .output import replay
from .repository import (
    Repository,
    RepositoryError,
    changes_as_diff,
    check_out,
    check_repository,
    examine,
    repository_of,
)
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
    "Repository",
    "RepositoryError",
    "build_spec",
    "changes_as_diff",
    "check_out",
    "check_parameters",
    "check_repository",
    "default_spec",
    "describe_command",
    "examine",
    "parse_fault",
    "replay",
    "repository_folder",
    "repository_of",
]
