"""What a session leaves behind for humans and programs: ``end_state.json``, ``debug_state.json``, ``git_revisions.json``.

Used by the session for the endings that it sees, and by the sidecar and the recovery for those that it does not. Everything
here builds JSON-safe values; :func:`pytest_openscope.system.write_json` puts them on the disk.
"""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..log import ExactMasker, last_lines, mask_json, mask_text
from ..system import now_iso
from .failures import MAX_MESSAGE_CHARS, as_text, clip
from .phases import Outcome
from .record import Failure, SessionRecord, StepRecord
from .revisions import installed_versions

END_STATE = "end_state.json"
DEBUG_STATE = "debug_state.json"
_LAST_LOG_LINES = 200


def platform_facts() -> dict[str, str]:
    """Return what machine and Python the session ran on."""
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def debug_state(
    record: SessionRecord,
    *,
    launcher_state: Mapping[str, Any] | None = None,
    log: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    resource_samples: Sequence[Any] = (),
    secrets: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return the content of ``debug_state.json``: the documented keys describe the first failure, the rest follows.

    ``failure`` and ``other_failures`` are what :func:`.failures_in` rebuilds. ``more`` adds top-level keys. Values whose keys
    or shape say secret are masked.
    """
    unknown = Failure("internal", Outcome.ERROR, "the session failed without a recorded failure")
    first, *others = record.failures or [unknown]
    log_lines: list[str] = []
    with contextlib.suppress(OSError):
        log_lines = last_lines(log, _LAST_LOG_LINES) if log is not None else []
    state: dict[str, Any] = {
        "session_uuid": record.session_uuid,
        "timestamp": now_iso(),
        "exception": first.message,
        "traceback": first.traceback,
        "crash_info": {
            "exception_type": first.exception_type or first.signal or first.kind,
            "message": first.message,
            "crash_time": first.at or now_iso(),
        },
        "launcher_state": {
            "steps": [[str(step.phase), step.name, str(step.outcome or step.skipped)] for step in record.steps],
            "lost_records": record.lost_records,
            **(launcher_state or {}),
        },
        "github": {"issue_url": None, "issue_number": None, "reported_at": None},
        "kind": first.kind,
        "outcome": first.outcome,
        "phase": first.phase,
        "step": first.step,
        "chained_exceptions": [asdict(link) for link in first.chain],
        "failure": asdict(first),
        "other_failures": [asdict(failure) for failure in others],
        "last_log_lines": log_lines,
        "parameters": parameters or {},
        "resource_samples": resource_samples,
        "version": __version__,
        "versions": installed_versions(),
        "platform": platform_facts(),
        "rig_id": record.rig_id,
        "subject_id": record.subject_id,
        "user_id": record.user_id,
        "dry_run": record.dry_run,
        "session_outcome": record.outcome,
        **more,
    }
    masked: dict[str, Any] = mask_json(json_safe(state), frozenset(secrets))
    return masked


def end_state(
    record: SessionRecord,
    *,
    rig_config: Mapping[str, Any] | None = None,
    mirror: Mapping[str, Any] | None = None,
    provisional: bool = False,
    secrets: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return the content of ``end_state.json``.

    A provisional state, which post-acquisition modules read, has neither stop time nor outcome yet. ``more`` adds keys.
    """
    state: dict[str, Any] = {
        "session_uuid": record.session_uuid,
        "subject_id": record.subject_id,
        "user_id": record.user_id,
        "start_time": record.started,
        "stop_time": None if provisional else record.stopped or now_iso(),
        "process_returncode": record.acquisitions[-1].returncode if record.acquisitions else None,
        "version": __version__,
        "rig_config": rig_config or {},
        "experiment_data": {"experiment_notes": record.operator_notes},
        "outcome": None if provisional else record.outcome,
        "exit_code": None if provisional else record.exit_code,
        "provisional": provisional,
        "duration_s": None if provisional else record.duration_s,
        "clock_changes": record.clock_changes,
        "rig_id": record.rig_id,
        "dry_run": record.dry_run,
        "simulated": record.simulated,
        "not_checked": record.not_checked,
        "devices": record.devices,
        "steps": [],
        "failures": [_in_brief(failure) for failure in record.failures],
        "measurements": [asdict(measurement) for measurement in record.measurements],
        "attachments": record.attachments,
        "notes": record.notes,
        "acquisitions": [asdict(facts) for facts in record.acquisitions],
        "deselected": record.deselected,
        "lost_records": record.lost_records,
        "helper_failures": record.helper_failures,
        "readiness_override": record.readiness_override,
        "continues": record.continues,
        "session_sync": _with_own_outcome(record, provisional),
        "mirror": mirror or {"status": "off", "bytes_behind": 0, "reason": ""},
        **more,
    }
    hidden = ExactMasker(secrets)
    masked: dict[str, Any] = mask_json(json_safe(state), hidden)
    masked["steps"] = [_step(step, hidden) for step in record.steps]
    return masked


def _with_own_outcome(record: SessionRecord, provisional: bool) -> dict[str, Any] | None:
    """Return what is known of the nodes; how this one ended it knows best, also where its process has died."""
    sync = record.session_sync
    if sync is None or provisional:
        return sync
    own = {"state": "ended", "outcome": str(record.outcome)}
    return {**sync, "nodes": [{**node, **own} if node["name"] == sync["node"] else node for node in sync["nodes"]]}


def _in_brief(failure: Failure) -> dict[str, Any]:
    """Return a failure without what ``debug_state.json`` has besides."""
    return {
        "kind": failure.kind,
        "outcome": failure.outcome,
        "phase": failure.phase,
        "step": failure.step,
        "exception_type": failure.exception_type,
        "message": clip(failure.message, 2000),
    }


def _step(step: StepRecord, hidden: ExactMasker) -> dict[str, Any]:
    """Return a step as JSON; in names an ordinary word that is somebody's password stays.

    A session may have thousands of steps, and most have nothing to mask.
    """
    texts = "\n".join((step.name, step.nodeid, step.skipped))
    if not step.attempts and mask_text(texts, hidden) == texts:
        return {**vars(step)}
    data: dict[str, Any] = mask_json(json_safe(vars(step)), hidden.names)
    data["skipped"] = mask_text(step.skipped, hidden)
    data["attempts"] = mask_json(json_safe(step.attempts), hidden)
    return data


def json_safe(value: Any, depth: int = 40) -> Any:
    """Return ``value`` as plain JSON values: keys as text, unknown objects by ``str``, cycles and NaN cut."""
    if value is None or isinstance(value, (bool, str)):
        return value if type(value) in (bool, str, type(None)) else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if value - value == 0 else None
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {as_text(str, key): json_safe(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((json_safe(item, depth - 1) for item in value), key=str)
    return clip(as_text(str, value), MAX_MESSAGE_CHARS)
