"""The pipeline steps that come with the package, and the contract of the lab's own ones."""

from __future__ import annotations

from .archiving.jobs import go_on_with_archives, hand_over_archives, owing_folders, state_of_archives, work_off_archives
from .context import ModuleContext, ModuleFailed
from .contract import check_entries, run_entry
from .scripts import ScriptImports
from .session_archiver import archive_session

__all__ = [
    "ModuleContext",
    "ModuleFailed",
    "ScriptImports",
    "archive_session",
    "check_entries",
    "go_on_with_archives",
    "hand_over_archives",
    "owing_folders",
    "run_entry",
    "state_of_archives",
    "work_off_archives",
]
