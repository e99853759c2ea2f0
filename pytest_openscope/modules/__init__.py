"""The pipeline steps that come with the package, and the contract of the lab's own ones.

A new step has a file of its own; it is registered in :mod:`.ready_made`, and described in
docs/reference/modules.md (whose tables :mod:`.reference` makes) and docs/how-to/move-from-the-launcher.md.
"""

from __future__ import annotations

from .archiving.jobs import go_on_with_archives, hand_over_archives, owing_folders, state_of_archives, work_off_archives
from .call_by_name import Steps
from .context import ModuleContext
from .entries import check_entries, limit_of, run_entry
from .failures import ModuleFailed
from .other_steps import OwnSteps
from .scripts import ScriptImports
from .session_archiver import archive_session
