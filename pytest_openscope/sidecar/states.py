"""From a journal to ``end_state.json`` and ``debug_state.json``: what the session itself would have known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from ..log import last_lines
from ..records import (
    DEBUG_STATE,
    END_STATE,
    METADATA,
    AcquisitionFacts,
    Failure,
    Measurement,
    OnFailure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    boot_is_same,
    debug_state,
    read_json,
)
from ..system import write_json
from .view import SessionView

LAST_LOG_LINES = 200
LAST_SAMPLES = 12


def record_of(
    view: SessionView, death: Failure, exit_code: int | None, stops: dict[str, Any], helper_failures: Iterable[str]
) -> SessionRecord:
    """Rebuild the session's record from its journal and its provisional end state, the death as its last failure."""
    before = read_json(view.folder / METADATA / END_STATE) or {}
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
    )
    record.steps = [step for event in view.steps if (step := _step(view, event, death)) is not None]
    record.failures = [*_failures(view), death]
    record.measurements = _measurements(view.measurements or _objects(before.get("measurements")))
    record.attachments = view.attachments or _texts(before.get("attachments"))
    record.notes = view.notes or _texts(before.get("notes"))
    record.operator_notes = str((before.get("experiment_data") or {}).get("experiment_notes") or "")
    record.deselected = _texts(before.get("deselected"))
    record.devices, record.simulated = view.devices, _texts(before.get("simulated")) or view.simulated
    record.lost_records = int(before.get("lost_records") or 0)
    record.helper_failures = [*_texts(before.get("helper_failures")), *helper_failures]
    record.acquisitions = [_facts(acquisition, stops.get(name) or {}) for name, acquisition in view.acquisitions.items()]
    return record


def _step(view: SessionView, event: dict[str, Any], death: Failure) -> StepRecord | None:
    try:
        step = StepRecord(str(event["step"]), str(event.get("nodeid") or ""), Phase(event["phase"]))
        step.on_failure = OnFailure(event.get("on_failure") or OnFailure.ABORT)
    except (KeyError, ValueError):
        return None
    step.kind, step.started = str(event.get("kind") or "test"), str(event.get("at") or "")
    if "outcome" in event:
        try:
            step.outcome = Outcome(event["outcome"]) if event["outcome"] else None
        except ValueError:
            step.skipped = str(event["outcome"])
        step.duration_s = float(event.get("duration_s") or 0.0)
    elif event is view.running:
        step.outcome = death.outcome
        died = view.died or {}
        if died and boot_is_same(float(event["mono"]), str(event["at"])):
            step.duration_s = max(0.0, float(died["mono"]) - float(event["mono"]))
    return step


def _failures(view: SessionView) -> list[Failure]:
    found = []
    for data in view.failures:
        try:
            found.append(Failure.from_json(data))
        except (TypeError, ValueError, KeyError):
            continue
    return found


def _measurements(events: list[dict[str, Any]]) -> list[Measurement]:
    names = {item.name for item in fields(Measurement)}
    found = []
    for event in events:
        try:
            found.append(Measurement(**{key: value for key, value in event.items() if key in names}))
        except TypeError:
            continue
    return found


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


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
