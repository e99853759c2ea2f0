"""``--resume-session``: runs the steps of post-acquisition that a session did not reach before its process died.

They run on the dead session's folder, ids and parameters, with no devices and no acquisition. Each runs once: its start is in
``rescue.jsonl`` before it begins, and a step that has begun is not run again, whatever became of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..log import MASK, ExactMasker
from ..records import DEBUG_STATE, METADATA, RESCUE_JOURNAL, Journal, Phase, failures_in
from ..sidecar import SessionView, is_running, unreached_steps
from ..system import FileLock, create_time, read_json
from .collecting import place_of
from .continuing import read_inputs
from .opening import expand

if TYPE_CHECKING:
    from ..config import Configuration
    from .state import SessionState

OPTION = "--resume-session"
_LOGGER = "pytest_openscope.session"


def steps_after_crash(items: Iterable[pytest.Item], configuration: Configuration) -> list[str]:
    """Return the ids of the steps that may run after the process has died: entries of a parameter file, and marked tests."""
    if configuration.settings.after_crash == "nothing" or configuration.validating:
        return []
    post = [item for item in items if place_of(item)[0] is Phase.POST_ACQUISITION]
    return [item.nodeid for item in post if _may_run(item)]


def _may_run(item: pytest.Item) -> bool:
    if getattr(item, "openscope_kind", "test") == "entry":
        return True
    marker = item.get_closest_marker(str(Phase.POST_ACQUISITION))
    return marker is not None and marker.kwargs.get("after_crash") is True


def command_of(config: pytest.Config, configuration: Configuration, nodeids: Iterable[str]) -> dict[str, Any]:
    """Return pytest's arguments and working directory for these steps, without what writes reports of its own."""
    arguments = ["--rig-config", str(configuration.rig_file), "--no-input", "-p", "no:cacheprovider", "-o", "addopts="]
    arguments += ["--rootdir", str(config.rootpath)]
    if config.inipath is not None:
        arguments += ["-c", str(config.inipath)]
    for plugin in config.known_args_namespace.plugins or ():
        arguments += ["-p", plugin]
    arguments += ["--import-mode", str(config.getoption("importmode"))]
    files = list(dict.fromkeys(str(config.rootpath / nodeid.partition("::")[0]) for nodeid in nodeids))
    parameter_file = configuration.parameter_file
    if parameter_file is not None and str(parameter_file) not in files:
        arguments += ["--params", str(parameter_file)]
    arguments += ["--dry-run"] if configuration.dry_run else []
    return {"arguments": [*arguments, *files], "cwd": str(config.invocation_params.dir)}


def parameters_of(folder: Path) -> list[tuple[str, Any, str]]:
    """Return the dead session's parameters with their source, but for secrets, which its files do not hold.

    Raises:
        ConfigurationError: the folder is no session's.
    """
    found = read_inputs(folder, OPTION)
    where = f"session {folder.name} ({OPTION})"
    # Its sidecar, which runs this one's steps, tells people of the crash; without its addresses the block would be a mistake.
    left_out = ("rig_id", "alerts")
    return [(key, _unmasked(value), where) for key, value in found.items() if key not in left_out and _unmasked(value) != MASK]


def _unmasked(value: Any) -> Any:
    """Return a value without the parts that are masked; a list that holds one is left out as a whole."""
    if isinstance(value, Mapping):
        kept = {key: _unmasked(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item != MASK}
    return MASK if MASK in str(value) else value


def rejoin(session: SessionState, folder: Path) -> None:
    """Go on in the folder of a session whose process has died; the counterpart is :func:`leave`.

    Raises:
        pytest.UsageError: somebody else is at it.
    """
    view = SessionView.of(folder)
    if view.ended is None or is_running(view.session or {}):
        raise pytest.UsageError(f"{OPTION}: session {folder.name} has not ended -> wait, or run 'recover' first")
    lock = FileLock(folder / METADATA / RESCUE_JOURNAL)
    if not lock.acquire():
        raise pytest.UsageError(f"{OPTION}: another process runs the steps of {folder.name} -> wait for its end")
    session.rig_lock = lock
    session.folder, session.metadata = folder, folder / METADATA
    session.record = view.new_record()
    session.record.dry_run = session.dry_run
    session.record.failures = failures_in(read_json(session.metadata / DEBUG_STATE) or {})
    session.started = datetime.fromisoformat(session.record.started)
    expand(session)
    session.log_path = view.log_path
    session.log.open(session.log_path, ExactMasker(session.secrets), on_lost=session.lose_records)
    session.journal = Journal(lock.path)
    session.log.on_clock_change = session.note_clock_change
    session.journal.write("rescue_started", pid=os.getpid(), create_time=create_time(os.getpid()))
    session.gate.acquisition_begun = True
    session.log.write("INFO", _LOGGER, "post-acquisition goes on in a new process, without devices")
    for notice in session.notices:
        session.log.write("WARNING", _LOGGER, notice)


def only_unreached(session: SessionState, items: list[pytest.Item]) -> None:
    """Keep the steps that have not begun yet, in place."""
    left = unreached_steps(session.folder)
    items[:] = [item for item in items if item.nodeid in left]


def leave(session: SessionState, exit_code: int | None) -> None:
    """Close what :func:`rejoin` opened; whoever started this process brings the states up to date from the journals."""
    record = session.record
    session.log.set_place(None, None)
    ran = [f"{step.name} {step.outcome or 'skipped'}" for step in record.steps]
    record.exit_code = exit_code
    session.log.write("INFO", _LOGGER, f"post-acquisition after the crash: {', '.join(ran) or 'no step'}")
    session.log.close()
    session.journal.write("rescue_ended", exit_code=exit_code)
    session.journal.close()
