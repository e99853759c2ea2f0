"""Reports of a session that has ended: built from ``debug_state.json``, put into the rig's outbox, sent from there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..records import DEBUG_STATE, METADATA, Journal
from ..system import read_json
from .late import append_late
from .view import SessionView

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
    if state is None or directory is None or QUEUED in view.done or missing_token(settings, os.environ):
        return []
    facts, rig = dict(view.session or {}), view.value("rig_config")
    reports = build_report(state, settings, facts=facts, session_folder=view.folder, secrets=frozenset(secrets), rig_config=rig)
    met = {report["fingerprint"] for report in reports if is_known(directory, report)}
    answers = [result(report, "queued", reason=NOT_SENT) for report in reports]
    for position, answer in enumerate(answers):
        if answer["fingerprint"] in met:
            answers[position] = told_before(state, answer)
        else:
            write_back(path, answer)
    # From here on another session's sidecar may send them and write into the same file.
    for position, report in enumerate(reports):
        if report["fingerprint"] in met:
            continue
        try:
            enqueue(directory, report)
        except OSError as error:
            answers[position] = result(report, "refused", reason=f"the outbox cannot be written: {error}")
            write_back(path, answers[position])
    journal.write("witness_done", part=QUEUED)
    return answers


def told_before(state: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return what ``debug_state.json`` says of a report already; ``answer`` where it says nothing."""
    told = (state.get("github") or {}).get("reports") or []
    found = next((item for item in told if item.get("fingerprint") == answer["fingerprint"]), answer)
    return {key: found.get(key) for key in answer}


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
    own: list[dict[str, Any]] = []
    try:
        answers = queue_reports(view, journal, secrets)
        own = [answer for answer in answers if answer["status"] == "queued"]
        for answer in answers:
            if answer not in own:
                on_result(answer)
    except Exception as error:
        reason = f"the report could not be made: {type(error).__name__}: {error}"
        on_result({"fingerprint": None, "status": "refused", "issue_url": None, "issue_number": None, "reason": reason})
        raise
    finally:
        on_left(len(own))
    if view.state_directory is None:
        return
    over = threading.Event()
    watch = _Watch(view.folder / METADATA / DEBUG_STATE, own, on_result, on_left)
    thread = threading.Thread(target=watch.follow, args=(over,), name="report-answers", daemon=True)
    if own:
        thread.start()
    try:
        send_waiting(view, secrets, limit_s)
    finally:
        over.set()
        if own:
            thread.join()


def send_waiting(view: SessionView, secrets: Iterable[str], limit_s: float) -> None:
    """Send what the rig's outbox holds; copies of earlier sessions in the central mirror follow the answers."""
    from ..issues import drain
    from .late_reports import LateAnswers

    assert view.state_directory is not None
    late = LateAnswers(secrets, own=view.folder)
    try:
        drain(view.state_directory, limit_s, on_written=late.written)
    finally:
        late.close()


def log_answer(view: SessionView, answer: dict[str, Any], secrets: Iterable[str]) -> None:
    """Write into the session log, which is the sidecar's now, what became of a report.

    Raises:
        OSError: the log cannot be written.
    """
    status, url, reason = answer.get("status"), answer.get("issue_url"), answer.get("reason")
    text = f"report {answer.get('fingerprint')}: {status} {url or ''}".rstrip() + (f" ({reason})" if reason else "")
    append_late(view, "INFO" if url else "WARNING", "pytest_openscope.issues", text, secrets)


class _Watch:
    """Reads in ``debug_state.json`` what becomes of the own reports, since an earlier session's sidecar may send them."""

    def __init__(
        self,
        path: Path,
        own: list[dict[str, Any]],
        on_result: Callable[[dict[str, Any]], None],
        on_left: Callable[[int], None],
    ) -> None:
        self.path, self.on_result, self.on_left = path, on_result, on_left
        self._known = {answer["fingerprint"]: answer for answer in own}
        self._left = set(self._known)
        self._stamp: object = None

    def follow(self, over: threading.Event) -> None:
        while not over.wait(_LOOK_S):
            self.look()
        self.look()

    def look(self) -> None:
        try:
            facts = self.path.stat()
        except OSError:
            return
        stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        github = (read_json(self.path) or {}).get("github") or {}
        for answer in github.get("reports") or []:
            known = self._known.get(answer.get("fingerprint"))
            if known is None or all(answer.get(key) == known.get(key) for key in ("status", "issue_url", "reason")):
                continue
            self._known[answer["fingerprint"]] = answer
            self._left.discard(answer["fingerprint"])
            self.on_result(answer)
            self.on_left(len(self._left))
