"""Finishing what nobody finished: after a power cut, or when the sidecar was killed as well.

The next session on a rig calls :func:`recover` before it starts anything; ``python -m pytest_openscope recover`` does it by
hand. A session is left alone while its experiment process or its sidecar lives, and when it belongs to another rig or
another computer.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ..records import JOURNAL, METADATA, Journal, boot_is_same
from ..system import FileLock, is_alive, light_command, spawn_detached
from .client import SIDECAR_LOG
from .markers import marked, unmark
from .samples import RESOURCE_USAGE, repair
from .view import WITNESS_JOURNAL, SessionView

#: Copies of earlier sessions that are brought up to date at one time, a process each; more wait for the next session.
REFRESHED_AT_ONCE = 8


def recover(state_directory: Path | None, output_root: Path | None = None, *, secrets: Iterable[str] = ()) -> list[str]:
    """Finish every unfinished session of a rig, hardware and states at once, its mirror and reports in the background.

    Args:
        state_directory: the rig's; None takes any rig of this computer that has sessions under ``output_root``.
        output_root: also look at the session folders in it.
        secrets: exact values to mask, from the present configuration.

    Returns:
        One line per session that was finished.
    """
    folders: dict[Path, Path] = {}
    noted: dict[Path, object] = {}
    for path, facts in marked(state_directory) if state_directory is not None else ():
        folder = Path(facts["session_folder"])
        if folder.is_dir():
            folders[folder.resolve()] = folder
            noted[folder.resolve()] = facts.get("session")
        elif folder.parent.is_dir():
            # Somebody removed the folder. A disk that is not plugged in would lack the parent too.
            unmark(path.parent.parent, path.stem)
    for folder in _with_journal(output_root):
        folders.setdefault(folder.resolve(), folder)
    lines: list[str] = []
    refreshed = 0
    for resolved, folder in folders.items():
        try:
            if resolved in noted:
                _complete_journal(folder, noted[resolved])
            if resolved in noted and refreshed < REFRESHED_AT_ONCE and _refresh(folder, state_directory, frozenset(secrets)):
                refreshed += 1
            line = _recover_one(folder, state_directory, frozenset(secrets))
        except Exception as error:
            # One damaged session must keep neither the others nor the new session from going on.
            print(traceback.format_exc(), file=sys.stderr)
            line = f"session {folder.name} could not be recovered: {type(error).__name__}: {error}"
        if line:
            lines.append(line)
    return lines


def _complete_journal(folder: Path, session: object) -> None:
    """Give a session that died before its first event the event that it could not write."""
    view = SessionView(folder)
    view.read()
    if view.session is not None or not isinstance(session, dict) or session.get("host") != socket.gethostname():
        return
    started = session.get("create_time")
    if is_alive(int(session.get("pid") or 0), float(started) if started is not None else None):
        return
    (folder / METADATA).mkdir(exist_ok=True)
    journal = Journal(folder / METADATA / JOURNAL)
    try:
        journal.write("session", **session)
    finally:
        journal.close()


def _with_journal(output_root: Path | None) -> list[Path]:
    if output_root is None:
        return []
    try:
        return sorted(path.parent.parent for path in output_root.glob(f"*/{METADATA}/{JOURNAL}"))
    except OSError:
        return []


def _refresh(folder: Path, state_directory: Path | None, secrets: frozenset[str]) -> bool:
    """Start a sidecar for a finished session that is noted all the same: its report was answered after its mirror's end."""
    view = SessionView(folder)
    view.read()
    if not view.finished or not _is_ours(view, state_directory):
        return False
    start_finisher(folder, secrets)
    return True


def _recover_one(folder: Path, state_directory: Path | None, secrets: frozenset[str]) -> str:
    view = SessionView(folder)
    view.read()
    if view.finished or not _is_ours(view, state_directory) or _is_running(view):
        return ""
    taken = FileLock(folder / METADATA / WITNESS_JOURNAL)
    if not taken.acquire():
        return ""
    try:
        view.read()
        if view.finished:
            return ""
        found_ended = view.ended is not None
        if not found_ended:
            _finish(view, taken.path, secrets)
        repair(folder / METADATA / RESOURCE_USAGE)
    finally:
        taken.release()
    return _hand_over(view, found_ended, secrets)


def _is_ours(view: SessionView, state_directory: Path | None) -> bool:
    """Tell whether this rig, on this computer, ran the session."""
    own = view.state_directory
    if view.session is None or own is None or view.value("host", socket.gethostname()) != socket.gethostname():
        return False
    if state_directory is not None:
        return own.resolve() == state_directory.resolve()
    return own.is_dir()


def _is_running(view: SessionView) -> bool:
    """Tell whether the experiment process lives; after ``ended`` only its sidecar counts, whose lock is asked for."""
    session = view.session or {}
    if view.ended is not None or not boot_is_same(float(session.get("mono", 0.0)), str(session.get("at", ""))):
        return False
    started = session.get("create_time")
    return is_alive(int(session.get("pid") or 0), float(started) if started is not None else None)


def _finish(view: SessionView, witness_journal: Path, secrets: frozenset[str]) -> None:
    from .witness import finish_session

    journal = Journal(witness_journal)
    try:
        finish_session(view, journal, secrets=secrets, recovered=True)
    finally:
        journal.close()


def _hand_over(view: SessionView, found_ended: bool, secrets: frozenset[str]) -> str:
    """Let a sidecar of its own finish mirror and reports; the caller goes on at once."""
    uuid, outcome = view.value("session_uuid", view.folder.name), (view.ended or {}).get("outcome")
    owes = [what for what, key in (("its mirror", "mirror_directory"), ("its report", "report")) if view.value(key)]
    rest = f"; {' and '.join(owes)} {'are' if len(owes) > 1 else 'is'} being completed" if owes else ""
    start_finisher(view.folder, secrets)
    if found_ended:
        return f"session {uuid} had ended ({outcome}) without its sidecar{rest}"
    return f"session {uuid} had no ending and was finished as {outcome}{rest}"


def start_finisher(folder: Path, secrets: Iterable[str] = ()) -> int:
    """Start a sidecar that finishes a session whose process is gone; return its pid.

    Raises:
        OSError: the process cannot be created.
    """
    import json
    import subprocess

    arguments = ["--folder", str(folder.absolute()), "--finish"]
    with open(folder / METADATA / SIDECAR_LOG, "ab") as log:
        command = light_command("pytest_openscope.sidecar.__main__", arguments)
        process = spawn_detached(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)
    path = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
    greeting = {"type": "hello", "secrets": sorted(secrets), "sys_path": path, "pid": os.getpid(), "terminal": ""}
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(greeting).encode("ascii") + b"\n")
        process.stdin.close()
    except OSError:
        print(f"the sidecar for {folder.name} did not take its greeting", file=sys.stderr)
    pid = process.pid
    # It outlives this process by design; Popen's finalizer would warn that it does.
    process.returncode = 0
    return pid
