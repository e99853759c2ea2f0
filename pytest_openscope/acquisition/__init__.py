"""Running, watching and stopping the programs that acquire data."""

from __future__ import annotations

from .adapter import Adapter as Adapter
from .adapter import Finding as Finding
from .adapter import Task as Task
from .api import Acquisition as Acquisition
from .calls import Call as Call
from .failures import AcquisitionFailed as AcquisitionFailed
from .failures import AcquisitionTimeout as AcquisitionTimeout
from .kinds import check_parameters as check_parameters
from .kinds import default_spec as default_spec
from .kinds import describe_command as describe_command
from .kinds import runs_nothing as runs_nothing
from .output import replay as replay
from .paths import repository_folder as repository_folder
from .repository import Change as Change
from .repository import Repository as Repository
from .repository import RepositoryError as RepositoryError
from .repository import changes_as_diff as changes_as_diff
from .repository import check_out as check_out
from .repository import check_repository as check_repository
from .repository import examine as examine
from .repository import local_changes as local_changes
from .repository import repository_of as repository_of
from .run import AcquisitionRun as AcquisitionRun
from .simulated import Fault as Fault
from .simulated import parse_fault as parse_fault
from .spec import AcquisitionSpec as AcquisitionSpec
