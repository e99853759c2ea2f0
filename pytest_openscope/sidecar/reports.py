"""Reports of a session that has ended: built from ``debug_state.json``, put into the rig's outbox, sent from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..folder import METADATA
from ..journal import Journal
from ..snapshot import DEBUG_STATE, read_json
from .view import SessionView

#: Name of the part of the work that puts the reports into the outbox; done once, whoever finishes the session.
QUEUED = "reports queued"


def queue_reports(view: SessionView, journal: Journal, secrets: Iterable[str]) -> set[str]:
    """Put this session's reports into the outbox, once; return their fingerprints.

    Raises:
        OSError: the state directory cannot be written.
    """
    from ..issues.outbox import enqueue
    from ..issues.report import build_report

    state, directory = read_json(view.folder / METADATA / DEBUG_STATE), view.state_directory
    if state is None or directory is None or QUEUED in view.done:
        return set()
    facts, rig = dict(view.session or {}), view.value("rig_config")
    reports = build_report(
        state, view.value("report"), facts=facts, session_folder=view.folder, secrets=frozenset(secrets), rig_config=rig
    )
    for report in reports:
        enqueue(directory, report)
    journal.write("witness_done", part=QUEUED)
    return {str(report["fingerprint"]) for report in reports}


def send_reports(
    view: SessionView,
    journal: Journal,
    secrets: Iterable[str],
    limit_s: float,
    on_result: Callable[[dict[str, Any]], None],
) -> None:
    """Queue this session's reports and send what the rig's outbox holds; ``on_result`` gets the answers to the session's own.

    Raises:
        OSError: the state directory cannot be written.
    """
    from ..issues.outbox import drain

    own = queue_reports(view, journal, secrets)

    def hear(answer: dict[str, Any]) -> None:
        if answer.get("fingerprint") in own:
            on_result(answer)

    if view.state_directory is not None:
        drain(view.state_directory, limit_s, on_result=hear)
