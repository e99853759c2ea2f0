"""The lines at the end of the terminal: outcome, first failure, session folder, what was skipped and why."""

from __future__ import annotations

from typing import Any

from ..records import Failure, Outcome, SessionRecord
from .report import advice
from .terminal import Shown


def write_summary(session: Shown, terminal: Any) -> None:
    """Write the summary; it says everything that an operator must know without opening a file."""
    record = session.record
    good = record.outcome is Outcome.PASSED
    terminal.ensure_newline()
    terminal.section("openscope", sep="=", green=good, red=not good)
    dry = " (dry run: nothing real was touched)" if record.dry_run else ""
    terminal.write_line(f"outcome: {record.outcome}{dry}", bold=True, green=good, red=not good)
    if record.failures:
        first = record.failures[0]
        terminal.write_line(f"first failure: {_as_check(session, first) or _as_step(first)}")
    for reason, names in _skipped(session).items():
        terminal.write_line(f"skipped: {', '.join(names)} ({reason})")
    if record.deselected:
        terminal.write_line(f"deselected: {len(record.deselected)} steps")
    if record.simulated:
        terminal.write_line(f"simulated: {', '.join(record.simulated)}")
    for text in record.not_checked:
        terminal.write_line(f"not checked here: {_one_line(text)} (--strict makes it a mistake)", yellow=True)
    for text in record.helper_failures:
        terminal.write_line(f"helper failed: {_one_line(text)}", yellow=True)
    for change in record.clock_changes:
        terminal.write_line(f"clock: {change['text']} (noticed at {change['at'][11:19]})", yellow=True)
    if record.lost_records:
        terminal.write_line(f"log records lost: {record.lost_records}", red=True)
    _write_nodes(record, terminal)
    if session.mirror["status"] != "off":
        behind, why = session.mirror.get("bytes_behind"), str(session.mirror.get("reason"))
        if behind is not None:
            why = f"{behind} bytes behind: {why}"
        verified = session.mirror["status"] == "verified"
        terminal.write_line(f"mirror: {session.mirror['status']}" + ("" if verified else f" ({why})"))
    _write_reports(session, terminal)
    for text in session.fresh_notices():
        terminal.write_line(f"openscope: {_one_line(text)}", yellow=True)
    terminal.write_line(f"session folder: {session.folder}")
    for text in _advice(session):
        terminal.write_line(f"what now: {_one_line(text)}")


def _advice(session: Shown) -> list[str]:
    """Return what to do now, as the session report says it."""
    record = session.record
    end = {
        "outcome": str(record.outcome),
        "dry_run": record.dry_run or session.validating,
        "helper_failures": record.helper_failures,
        "lost_records": record.lost_records,
        "mirror": session.mirror,
    }
    rig = session.configuration.rig_file
    return advice(end, f'"{rig}"' if " " in str(rig) else str(rig), str(session.folder))


def _write_nodes(record: SessionRecord, terminal: Any) -> None:
    sync = record.session_sync
    if sync is None:
        return
    if sync["bypassed"]:
        terminal.write_line("nodes: the operator bypassed the session sync", yellow=True)
    for node in sync["nodes"]:
        if node["name"] != sync["node"]:
            how = node["outcome"] or node["state"]
            why = f" ({_one_line(node['reason'])})" if node["reason"] else ""
            terminal.write_line(f"node {node['name']}: {how}{why}", yellow=how not in ("passed", "unknown"))


def _as_step(failure: Failure) -> str:
    where = f"{failure.phase} step {failure.step}: " if failure.phase else ""
    return where + _one_line(failure.message or failure.exception_type)


def _as_check(session: Shown, failure: Failure) -> str:
    """Return the failure of a ready-made check by the check's own name; "" for any other."""
    for result in session.recorder.results if session.recorder is not None else ():
        if failure.message == str(result):
            return f"check {result.check}: {_one_line(failure.message.removeprefix(f'{result.check}: {result.status}: '))}"
    return ""


def _write_reports(session: Shown, terminal: Any) -> None:
    latest = {report.get("fingerprint"): report for report in session.reports}
    for report in latest.values():
        link, reason = report.get("issue_url") or "", _one_line(report.get("reason") or "")
        if report.get("status") == "queued" and "goes out" not in reason:
            reason = f"{reason}; goes out with the next session".removeprefix("; ")
        parts = [str(report.get("status")), link, f"({reason})" if reason else ""]
        terminal.write_line(f"issue: {' '.join(part for part in parts if part)}")
    left = session.sidecar.reports_left if session.sidecar is not None else 0
    if left:
        terminal.write_line(f"issue: {left} queued (not sent yet; goes out in the background, or with the next session)")
    if session.missing_token:
        terminal.write_line(f"WARNING: {session.missing_token}", yellow=True)


def _skipped(session: Shown) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for step in session.record.steps:
        if step.skipped:
            found.setdefault(_one_line(step.skipped), []).append(step.name)
    return found


def _one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    line = lines[0].strip() if lines else ""
    return line if len(line) <= 300 else line[:297] + "..."
