"""The pipeline steps that come with the package, and the contract of the lab's own ones.

A new step has a file of its own with its ``STEPS``; it is registered in :mod:`.contract`, READY_MADE.
"""

from __future__ import annotations

from .archiving.jobs import go_on_with_archives, hand_over_archives, owing_folders, state_of_archives, work_off_archives
from .context import ModuleContext
from .contract import check_entries, limit_of, run_entry
from .failures import ModuleFailed
from .lookup import OwnSteps
from .scripts import ScriptImports
from .session_archiver import archive_session
from .steps import Steps

__all__ = [
    "ModuleContext",
    "ModuleFailed",
    "OwnSteps",
    "ScriptImports",
    "Steps",
    "archive_session",
    "check_entries",
    "go_on_with_archives",
    "hand_over_archives",
    "limit_of",
    "owing_folders",
    "run_entry",
    "state_of_archives",
    "work_off_archives",
]
