"""After a session's process has died: runs the steps of its post-acquisition that it did not reach, in a new process.

That process is pytest with ``--resume-session``; it writes the session log, and what it did into ``rescue.jsonl``, from which
the states are brought up to date here. A step that has begun counts as run, so that one that ends its process is not run again;
the steps after it get a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..log import mask_json
from ..records import DEBUG_STATE, END_STATE, METADATA, RESCUE_JOURNAL, Outcome, end_state, json_safe, to_json
from ..system import FileLock, read_json, spawn_detached, update_json
from .reconstruct import SessionView, record_of

RESCUE_LOG = "rescue.log"
_TICK_S = 0.1
#: Written for the run as a whole; a second pytest would write over what the first has made, or run it again.
_NOT_INHERITED = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
#: What steps can change in a session's state.
_CHANGED = (
    "outcome",
    "experiment_data",
    "simulated",
    "steps",
    "failures",
    "measurements",
    "attachments",
    "notes",
    "helper_failures",
)


def unreached_steps(session: SessionView | Path) -> list[str]:
    """Return the ids of the steps of post-acquisition that may run after a crash and have not begun, in their order."""
    view = session if isinstance(session, SessionView) else SessionView.of(session)
    if not view.acquisition_begun:
        return []
    begun = {step.get("nodeid") for step in view.steps}
    return [nodeid for nodeid in view.after_crash if nodeid not in begun]


def is_owed(view: SessionView) -> bool:
    """Tell whether steps are left to run, or have run and are not in the states yet (who started them was killed)."""
    if view.died is None or view.death is None:
        return False
    told = (read_json(view.folder / METADATA / END_STATE) or {}).get("rescued") or {}
    return bool(unreached_steps(view)) or len(told.get("steps", ())) != len(_rescued(view))


def _rescued(view: SessionView) -> list[dict[str, Any]]:
    return [step for step in view.steps if step.get("rescued")]


def run_unreached(
    view: SessionView,
    say: Callable[[str], object],
    tick: Callable[[], object] = lambda: None,
    *,
    to_log: bool = True,
) -> str:
    """Run them, each once; return why some could not be run ("" when all have begun).

    Args:
        view: of a session whose states are written.
        say: is told of a step that has ended the process that ran it.
        tick: called all the while.
        to_log: what pytest prints goes to ``rescue.log``, else to this process's own output.
    """
    lock = FileLock(view.folder / METADATA / RESCUE_JOURNAL)
    while not lock.acquire():
        # Whoever started them was killed; they go on by themselves.
        tick()
        time.sleep(_TICK_S)
    lock.release()
    view.read()
    while left := unreached_steps(view):
        try:
            code = _run(view, tick, to_log)
        except OSError as error:
            return f"pytest cannot be started: {error}"
        view.read()
        if unreached_steps(view) == left:
            return f"pytest ended with exit code {code} before the first of them; see {METADATA}/{RESCUE_LOG}"
        if "outcome" not in (last := view.steps[-1]):
            say(f"post-acquisition after the crash: the process that ran it ended in step {last.get('step')} ({code})")
    return ""


def _run(view: SessionView, tick: Callable[[], object], to_log: bool) -> int:
    arguments = [*view.rescue.get("arguments", ()), "--resume-session", str(view.folder)]
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    options: dict[str, Any] = {"cwd": view.rescue.get("cwd") or str(view.folder), "env": environment}
    command = [sys.executable, "-m", "pytest", *map(str, arguments)]
    if not to_log:
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **options).returncode
    with open(view.folder / METADATA / RESCUE_LOG, "ab") as output:
        process = spawn_detached(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        while process.poll() is None:
            tick()
            time.sleep(_TICK_S)
    return process.returncode


def add_to_states(view: SessionView, secrets: Iterable[str], problem: str = "") -> Outcome:
    """Bring ``end_state.json`` and ``debug_state.json`` up to date with what was made up for; return its worst outcome.

    Raises:
        OSError: one of them cannot be written.
    """
    secrets = frozenset(secrets)
    assert view.death is not None
    record = record_of(view, view.death, None, {}, ())
    fresh = end_state(record, secrets=secrets)
    rescued = _rescued(view)
    worst = Outcome.PASSED
    for step in record.steps[len(record.steps) - len(rescued) :]:
        worst = worst.worse(step.outcome or Outcome.PASSED)
    about = {"steps": [str(step.get("step")) for step in rescued], "outcome": str(worst), "problem": problem}

    def change_end(state: dict[str, Any]) -> None:
        helpers = list(dict.fromkeys([*(state.get("helper_failures") or []), *fresh["helper_failures"]]))
        state.update({key: fresh[key] for key in _CHANGED}, helper_failures=helpers, rescued=about)

    others = mask_json(json_safe([to_json(failure) for failure in record.failures[1:]]), secrets)
    update_json(view.folder / METADATA / DEBUG_STATE, lambda state: state.update(other_failures=others))
    update_json(view.folder / METADATA / END_STATE, change_end)
    return worst
