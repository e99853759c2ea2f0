"""Reports of a session that has ended: built from ``debug_state.json``, put into the rig's outbox, sent from there.

Where a report is answered after its session's mirror was complete, the copy of ``debug_state.json`` in it must follow. Only a
sidecar of that session touches the share, never this module: until that is done a note stands in ``unfinished/``, so that the
rig's next session takes it up again.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..records import DEBUG_STATE, METADATA, Journal
from ..system import read_json
from .link import start_finisher
from .reconstruct import SessionView
from .recovery import REFRESHED_AT_ONCE

#: Name of the part of the work that puts the reports into the outbox; done once, whoever finishes the session.
QUEUED = "reports queued"
NOT_SENT = "not sent yet; goes out in the background, or with the next session"
_LOOK_S = 0.1


def wanted(view: SessionView) -> bool:
    """Tell whether this session reports at all; one that was finished before has only its mirror left to see to."""
    if view.finished:
        return False
    report = view.value("report") or {}
    return bool(report.get("enabled")) and (not view.value("dry_run") or bool(report.get("report_dry_runs")))


def queue_reports(view: SessionView, journal: Journal, secrets: Iterable[str]) -> list[dict[str, Any]]:
    """Put this session's reports into the outbox, once; return what ``debug_state.json`` says of each from now on.

    Whoever did it before may have been killed before it was noted: a report that the outbox has met already stays as it is.

    Without a token nothing is queued: a rig that never gets one would gather reports without end. A report that the disk does
    not take is refused.
    """
    from ..config import GithubIssueSettings
    from ..issues import build_report, enqueue, is_known, missing_token, result, write_back

    path = view.folder / METADATA / DEBUG_STATE
    state, directory = read_json(path), view.state_directory
    settings = GithubIssueSettings.of(view.value("report"))
    part = f"{QUEUED} after the crash's" if view.rescue_failed else QUEUED
    if state is None or part in view.done or missing_token(settings, os.environ):
        return []
    facts, rig = dict(view.session or {}), view.value("rig_config")
    reports = build_report(state, settings, facts=facts, session_folder=view.folder, secrets=frozenset(secrets), rig_config=rig)
    answers = {report["fingerprint"]: result(report, "queued", reason=NOT_SENT) for report in reports}
    told = {item.get("fingerprint"): item for item in _reports_in(state)}
    new = [report for report in reports if not is_known(directory, report)]
    for fingerprint, answer in answers.items():
        if any(report["fingerprint"] == fingerprint for report in new):
            write_back(path, answer)
        elif fingerprint in told:
            answers[fingerprint] = {key: told[fingerprint].get(key) for key in answer}
    # From here on another session's sidecar may send them and write into the same file.
    for report in new:
        try:
            enqueue(directory, report)
        except OSError as error:
            answer = answers[report["fingerprint"]] = result(report, "refused", reason=f"the outbox cannot be written: {error}")
            write_back(path, answer)
    journal.write("witness_done", part=part)
    return list(answers.values())


def _reports_in(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return ((state or {}).get("github") or {}).get("reports") or []


def send_reports(
    view: SessionView,
    journal: Journal,
    secrets: Iterable[str],
    limit_s: float,
    on_result: Callable[[dict[str, Any]], None],
    on_left: Callable[[int], None],
) -> None:
    """Queue this session's reports and send what the rig's outbox holds.

    ``on_result`` gets the answers to the session's own, ``on_left`` how many of those have none yet.

    Raises:
        Exception: the reports could not be made; ``on_result`` has said so.
    """
    own: dict[str, dict[str, Any]] = {}
    try:
        for answer in queue_reports(view, journal, secrets):
            if answer["status"] == "queued":
                own[answer["fingerprint"]] = answer
            else:
                on_result(answer)
    except Exception as error:
        reason = f"the report could not be made: {type(error).__name__}: {error}"
        on_result({"fingerprint": None, "status": "refused", "issue_url": None, "issue_number": None, "reason": reason})
        raise
    finally:
        on_left(len(own))
    over = threading.Event()
    arguments = (view.folder / METADATA / DEBUG_STATE, own, over, on_result, on_left)
    thread = threading.Thread(target=_follow, args=arguments, name="report-answers", daemon=True)
    thread.start()
    try:
        send_waiting(view, secrets, limit_s)
    finally:
        over.set()
        thread.join()


def _follow(
    path: Path,
    own: dict[str, dict[str, Any]],
    over: threading.Event,
    on_result: Callable[[dict[str, Any]], None],
    on_left: Callable[[int], None],
) -> None:
    """Read in ``debug_state.json`` what becomes of the own reports, since an earlier session's sidecar may send them."""
    left, before, last = set(own), None, not own
    while not last:
        last = over.wait(_LOOK_S)
        stamp = path.stat().st_mtime_ns if path.exists() else None
        if stamp == before:
            continue
        before = stamp
        for answer in _reports_in(read_json(path)):
            fingerprint = str(answer.get("fingerprint"))
            known = own.get(fingerprint)
            if known is None or all(answer.get(key) == known.get(key) for key in ("status", "issue_url", "reason")):
                continue
            own[fingerprint] = answer
            left.discard(fingerprint)
            on_result(answer)
            on_left(len(left))


def send_waiting(view: SessionView, secrets: Iterable[str], limit_s: float) -> None:
    """Send what the rig's outbox holds; copies of earlier sessions in the central mirror follow the answers."""
    from ..issues import drain

    with LateAnswers(secrets, own=view.folder) as late:
        drain(view.state_directory, limit_s, on_written=late.written)


class LateAnswers:
    """Lets the copies of sessions follow whose ``debug_state.json`` changed after their mirror was complete.

    Args:
        own: folder of a session that sees to its own copy.
        tell: gets at the end the name of each session whose copy is on its way; the others are left to the rig's next session.
    """

    def __init__(
        self, secrets: Iterable[str] = (), own: Path | None = None, tell: Callable[[str], object] = lambda name: None
    ) -> None:
        self._secrets = frozenset(secrets)
        self._own = own
        self._tell = tell
        #: Folders of sessions whose copy is on its way, and whether they have changed once more since.
        self._started: dict[Path, bool] = {}

    def __enter__(self) -> LateAnswers:
        return self

    def written(self, debug_state: Path, answer: Mapping[str, Any]) -> None:
        """Take up a change; that a report still waits is not worth a copy."""
        folder = debug_state.parent.parent
        if folder == self._own or answer.get("status") == "queued":
            return
        view = SessionView.of(folder)
        if not view.value("mirror_directory") or not view.finished:
            return
        try:
            view.mark_unfinished()
        except OSError as error:
            print(f"{folder.name}: the note on its mirror cannot be written: {error}", file=sys.stderr)
        if folder in self._started:
            self._started[folder] = True
        elif len(self._started) < REFRESHED_AT_ONCE:
            self._start(folder)

    def _start(self, folder: Path) -> None:
        try:
            start_finisher(folder, self._secrets)
            self._started[folder] = False
        except OSError as error:
            print(f"{folder.name}: its mirror is left to the next session: {error}", file=sys.stderr)

    def __exit__(self, *error: object) -> None:
        for folder, again in self._started.items():
            if again:
                self._start(folder)
            self._tell(folder.name)
