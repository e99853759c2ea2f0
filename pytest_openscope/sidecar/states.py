"""From a journal to ``end_state.json`` and ``debug_state.json``: what the session itself would have known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..log import last_lines
from ..records import (
    DEBUG_STATE,
    METADATA,
    AcquisitionFacts,
    Failure,
    OnFailure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    boot_is_same,
    debug_state,
    from_json,
)
from ..system import read_json, write_json
from .view import SessionView

LAST_LOG_LINES = 200
LAST_SAMPLES = 12


def record_of(
    view: SessionView, death: Failure, exit_code: int | None, stops: dict[str, Any], helper_failures: Iterable[str]
) -> SessionRecord:
    """Rebuild the session's record from its journal, the death as its last failure."""
    died = view.died or {}
    record = SessionRecord(
        session_uuid=str(view.value("session_uuid", view.folder.name)),
        subject_id=view.value("subject_id"),
        user_id=view.value("user_id"),
        rig_id=str(view.value("rig_id", "")),
        started=str(view.value("started", "")),
        dry_run=bool(view.value("dry_run", False)),
        stopped=str(died.get("stopped") or died.get("at") or ""),
        exit_code=exit_code,
        readiness_override=view.value("readiness_override"),
        continues=view.value("continues"),
    )
    record.steps = [step for event in view.steps if (step := _step(view, event, death)) is not None]
    for field, values in view.kept:
        try:
            record.take(field, [from_json(field, value) for value in values])
        except (AttributeError, TypeError, ValueError, KeyError):
            continue  # of another version
    record.take("failures", [death])
    record.take("helper_failures", helper_failures)
    ended = {facts.name for facts in record.acquisitions}
    running = {name: one for name, one in view.acquisitions.items() if name not in ended}
    record.take("acquisitions", [_facts(acquisition, stops.get(name) or {}) for name, acquisition in running.items()])
    return record


def _step(view: SessionView, event: dict[str, Any], death: Failure) -> StepRecord | None:
    try:
        step = StepRecord(str(event["step"]), str(event.get("nodeid") or ""), Phase(event["phase"]))
        step.on_failure = OnFailure(event.get("on_failure") or OnFailure.ABORT)
    except (KeyError, ValueError):
        return None
    step.kind, step.started = str(event.get("kind") or "test"), str(event.get("started") or event.get("at") or "")
    step.attempts = list(event.get("attempts") or [])
    if "outcome" in event:
        step.skipped = str(event.get("skipped") or "")
        step.duration_s = float(event.get("duration_s") or 0.0)
        try:
            step.outcome = Outcome(event["outcome"]) if event["outcome"] else None
        except ValueError:
            step.skipped = step.skipped or str(event["outcome"])
        return step
    # It was running: a step, and perhaps the fixture that it was being torn down with.
    step.outcome = death.outcome
    died = view.died or {}
    if died and boot_is_same(float(event["mono"]), str(event["at"])):
        step.duration_s = max(0.0, float(died["mono"]) - float(event["mono"]))
    return step


def _facts(acquisition: Any, stop: dict[str, Any]) -> AcquisitionFacts:
    finished = acquisition.finished or {}
    facts = AcquisitionFacts(
        name=acquisition.name,
        command=[str(part) for part in acquisition.started.get("command") or []],
        pid=acquisition.pid or None,
        returncode=finished.get("returncode"),
        survivors=list(stop.get("survivors") or []),
    )
    if acquisition.finished is None:
        facts.stop_reason = "the experiment process died"
    elif boot_is_same(float(finished["mono"]), str(finished["at"])):
        facts.duration_s = float(finished["mono"]) - float(acquisition.started["mono"])
    return facts


def debug_of(view: SessionView, record: SessionRecord, secrets: Iterable[str]) -> None:
    """Write ``debug_state.json``.

    Raises:
        OSError: the disk is full or the folder is gone.
    """
    try:
        lines = last_lines(view.log_path, LAST_LOG_LINES)
    except OSError:
        lines = []
    state = debug_state(
        session_uuid=record.session_uuid,
        failures=record.failures,
        launcher_state={
            "session_folder": str(view.folder),
            "pid": view.value("pid"),
            "last_step": view.last_step,
            "steps": [[str(step.phase), step.name, str(step.outcome or step.skipped)] for step in record.steps],
            "lost_records": record.lost_records,
        },
        last_log_lines=lines,
        parameters=read_json(view.folder / METADATA / "processed_parameters.json"),
        resource_samples=last_samples(view),
        secrets=secrets,
        rig_id=record.rig_id,
        subject_id=record.subject_id,
        user_id=record.user_id,
        dry_run=record.dry_run,
        session_outcome=str(record.outcome),
        exit_code=record.exit_code,
        signal=record.failures[-1].signal,
        faulthandler=record.failures[-1].faulthandler,
    )
    before = read_json(view.folder / METADATA / DEBUG_STATE)
    if before is not None and isinstance(before.get("github"), dict):
        state["github"] = before["github"]
    write_json(view.folder / METADATA / DEBUG_STATE, state)


def last_samples(view: SessionView) -> list[Any]:
    """Return the newest resource samples, none when the file is missing or damaged."""
    try:
        samples = json.loads((view.folder / METADATA / "resource_usage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return samples[-LAST_SAMPLES:] if isinstance(samples, list) else []
