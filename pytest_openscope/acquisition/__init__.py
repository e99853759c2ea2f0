"""Running, watching and stopping the programs that acquire data."""

from __future__ import annotations

from .adapter import Adapter, Finding, Task
from .api import Acquisition
from .calls import Call
from .failures import AcquisitionFailed, AcquisitionTimeout
from .kinds import check_parameters, default_spec, describe_command, runs_nothing
from .output import replay
from .paths import repository_folder
from .repository import (
    Change,
    Repository,
    RepositoryError,
    changes_as_diff,
    check_out,
    check_repository,
    examine,
    local_changes,
    repository_of,
)
from .run import AcquisitionRun
from .simulated import Fault, parse_fault
from .spec import AcquisitionSpec
