"""Finishing what nobody finished: after a power cut, or when the sidecar was killed as well.

The next session on a rig calls :func:`recover` before it starts anything; ``python -m pytest_openscope recover`` does it by
hand. A session is left alone while its experiment process or its sidecar lives, and when it belongs to another rig or
another computer.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..records import JOURNAL, METADATA, WITNESS_JOURNAL, Journal
from ..system import FileLock
from .link import start_finisher
from .notes import UNFINISHED, notes, unmark
from .reconstruct import SessionView, is_running
from .samples import RESOURCE_USAGE, repair
from .witness import Witness

#: Copies of earlier sessions that are brought up to date at one time, a process each; more wait for the next session.
REFRESHED_AT_ONCE = 8


def recover(
    state_directory: Path | None,
    output_root: Path | None = None,
    *,
    secrets: Iterable[str] = (),
    alert_urls: Iterable[str] = (),
) -> list[str]:
    """Finish every unfinished session of a rig, hardware and states at once, its mirror and reports in the background.

    Args:
        state_directory: the rig's; None takes any rig of this computer that has sessions under ``output_root``.
        output_root: also look at the session folders in it.
        secrets: exact values to mask, from the present configuration.
        alert_urls: where people are told of a session that died, from the present configuration.

    Returns:
        One line per session that was finished.
    """
    secrets, alert_urls = frozenset(secrets), tuple(alert_urls)
    folders: dict[Path, Path] = {}
    noted: dict[Path, object] = {}
    for path, facts in notes(state_directory / UNFINISHED) if state_directory is not None else ():
        folder = Path(facts.get("session_folder", path))
        if folder.is_dir():
            folders[folder.resolve()] = folder
            noted[folder.resolve()] = facts.get("session")
        elif folder.parent.is_dir() and folder != path:
            # Somebody removed the folder. A disk that is not plugged in would lack the parent too.
            unmark(path.parent.parent, path.stem)
    for journal in sorted(output_root.glob(f"*/{METADATA}/{JOURNAL}")) if output_root is not None else ():
        folder = journal.parent.parent
        folders.setdefault(folder.resolve(), folder)
    lines: list[str] = []
    refreshed = 0
    for resolved, folder in folders.items():
        try:
            if resolved in noted:
                _complete_journal(folder, noted[resolved])
            view = SessionView.of(folder)
            if not _is_ours(view, state_directory):
                continue
            if not view.finished:
                lines += _recover_one(view, secrets, alert_urls)
            elif resolved in noted and refreshed < REFRESHED_AT_ONCE:
                # Its report was answered after its mirror's end.
                start_finisher(folder, secrets)
                refreshed += 1
        except Exception as error:
            # One damaged session must keep neither the others nor the new session from going on.
            print(traceback.format_exc(), file=sys.stderr)
            lines.append(f"session {folder.name} could not be recovered: {type(error).__name__}: {error}")
    return lines


def _complete_journal(folder: Path, session: object) -> None:
    """Give a session that died before its first event the event that it could not write."""
    known = SessionView.of(folder).session is not None
    if known or not isinstance(session, dict) or session.get("host") != socket.gethostname() or is_running(session):
        return
    (folder / METADATA).mkdir(exist_ok=True)
    journal = Journal(folder / METADATA / JOURNAL)
    journal.write("session", **session)
    journal.close()


def _is_ours(view: SessionView, state_directory: Path | None) -> bool:
    """Tell whether this rig, on this computer, ran the session."""
    if view.session is None or view.value("host", socket.gethostname()) != socket.gethostname():
        return False
    own = view.state_directory
    if state_directory is not None:
        return own.resolve() == state_directory.resolve()
    return own.is_dir()


def _recover_one(view: SessionView, secrets: frozenset[str], alert_urls: tuple[str, ...]) -> list[str]:
    """Finish a session unless somebody is at it; a sidecar of its own sees to mirror and reports, and is not waited for."""
    # After ``ended`` only its sidecar counts, whose lock is asked for.
    if view.ended is None and view.same_boot and is_running(view.session or {}):
        return []
    found_ended = finish_dead(view, secrets)
    if found_ended is None:
        return []
    start_finisher(view.folder, secrets, alert_urls)
    outcome = (view.ended or {}).get("outcome")
    owes = [what for what, key in (("its mirror", "mirror_directory"), ("its report", "report")) if view.value(key)]
    rest = f"; {' and '.join(owes)} {'are' if len(owes) > 1 else 'is'} being completed" if owes else ""
    if found_ended:
        return [f"session {view.uuid} had ended ({outcome}) without its sidecar{rest}"]
    return [f"session {view.uuid} had no ending and was finished as {outcome}{rest}"]


def finish_dead(view: SessionView, secrets: Iterable[str] = ()) -> bool | None:
    """Write the states of a session whose process is gone; True when it had ended, None when somebody else is at it."""
    with _witness_journal(view) as journal:
        if journal is None or view.finished:
            return None
        found_ended = view.ended is not None
        if not found_ended:
            Witness(view, journal, secrets, recovered=True).finish()
        repair(view.folder / METADATA / RESOURCE_USAGE)
        return found_ended


def reopen(view: SessionView) -> None:
    """Note that something is owed again for a session that was finished: its mirror, a report.

    Raises:
        OSError: the note cannot be written.
    """
    with _witness_journal(view) as journal:
        if journal is not None and view.finished:
            journal.write("reopened")
    view.mark_unfinished()


@contextlib.contextmanager
def _witness_journal(view: SessionView) -> Iterator[Journal | None]:
    """Lend the witness's journal with its lock, the session read anew; None while somebody else is at it."""
    taken = FileLock(view.folder / METADATA / WITNESS_JOURNAL)
    if not taken.acquire():
        yield None
        return
    with taken, contextlib.closing(Journal(taken.path)) as journal:
        view.read()
        yield journal
