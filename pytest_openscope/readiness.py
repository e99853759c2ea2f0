"""Is this rig ready? The results of its validation, kept per rig, and what changed since its last good session.

``validation.json`` in the rig's state directory holds the last result of every check, ``last_good.json`` what the rig looked
like in its last session that passed. A check's name is ``group``, ``group.part`` or ``group[thing]``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .durations import format_duration, parse_duration_s
from .folder import write_json

VALIDATION = "validation.json"
LAST_GOOD = "last_good.json"
_DEFAULT_MAX_AGE_S = 86_400.0


@dataclass(frozen=True)
class Readiness:
    """Whether an experiment may start.

    Attributes:
        problems: one text for each required check that failed, is stale or never ran.
        refuse: True when the rig file wants a session refused for that, not warned about.
        message: all of it, with the command that validates the rig; "" when it is ready.
    """

    ok: bool
    refuse: bool = False
    problems: tuple[str, ...] = ()
    message: str = ""


def group_of(check: str) -> str:
    """Return what stands before the first ``.`` or ``[``."""
    return check.partition("[")[0].partition(".")[0]


def read_results(state_directory: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of every check; a missing or damaged file holds none."""
    content = _read(state_directory / VALIDATION).get("checks")
    return {str(key): value for key, value in content.items() if isinstance(value, dict)} if isinstance(content, dict) else {}


def keep_results(
    state_directory: Path, results: Iterable[Mapping[str, Any]], now: datetime, *, rig_file: str = "", complete: bool = False
) -> None:
    """Merge results into ``validation.json``.

    Args:
        results: each with ``check``, ``status`` and what else :class:`~.checks.result.CheckResult` has; ``expires_s`` where the
            check has its own age limit.
        complete: nothing was deselected: results of the same groups that did not come again (a device that the rig no longer
            has) are dropped.

    Raises:
        OSError: the state directory cannot be written.
    """
    fresh = {str(result["check"]): {**result, "at": now.isoformat(timespec="seconds")} for result in results}
    kept = read_results(state_directory)
    if complete:
        groups = {group_of(check) for check in fresh}
        kept = {check: result for check, result in kept.items() if group_of(check) not in groups}
    state_directory.mkdir(parents=True, exist_ok=True)
    write_json(state_directory / VALIDATION, {"rig_file": rig_file, "checks": {**kept, **fresh}})


def keeper(state_directory: Path, rig_file: Path) -> Callable[[Iterable[Mapping[str, Any]], bool], None]:
    """Return what a recorder of checks calls with its results, and with True when nothing was deselected."""

    def keep(results: Iterable[Mapping[str, Any]], complete: bool) -> None:
        now = datetime.now().astimezone()
        keep_results(state_directory, results, now, rig_file=str(rig_file), complete=complete)

    return keep


def evaluate(block: Mapping[str, Any], state_directory: Path, now: datetime, *, rig_file: str = "") -> Readiness:
    """Hold the kept results against the rig file's ``readiness``.

    ``require`` names checks or groups (nothing: all that ever ran); a result counts for ``max_age``, or for the check's own
    ``expires``. Skipped checks and warnings do not hold a session back.
    """
    results = read_results(state_directory)
    max_age_s = parse_duration_s(block.get("max_age", _DEFAULT_MAX_AGE_S))
    required = block.get("require") or sorted({group_of(check) for check in results})
    required = [required] if isinstance(required, str) else list(required)
    problems = [problem for name in required for problem in _problems_of(str(name), results, max_age_s, now)]
    if not required:
        problems = ["the rig was never validated"]
    if not problems:
        return Readiness(True)
    rig_file = rig_file or str(_read(state_directory / VALIDATION).get("rig_file") or "") or "RIG.yaml"
    command = f'pytest --rig-config "{rig_file}" --validate-rig'
    message = f"the rig is not ready: {'; '.join(problems)} -> run: {command}, or give --override-readiness REASON"
    return Readiness(False, block.get("on_stale", "refuse") == "refuse", tuple(problems), message)


def _problems_of(name: str, results: Mapping[str, Mapping[str, Any]], max_age_s: float, now: datetime) -> list[str]:
    mine = {check: result for check, result in results.items() if check == name or group_of(check) == name}
    if not mine:
        return [f"{name} was never checked"]
    problems = []
    for check, result in mine.items():
        age_s = _age_s(result.get("at"), now)
        limit_s = result.get("expires_s") or max_age_s
        ago = "at an unknown time" if age_s is None else f"{format_duration(max(0.0, age_s))} ago"
        if result.get("status") == "fail":
            problems.append(f"{check} failed {ago}: {result.get('message', '')}".rstrip(": "))
        elif age_s is None or age_s > limit_s or age_s < -limit_s:
            problems.append(f"{check} was checked {ago}, longer than {format_duration(limit_s)}")
    return problems


def _age_s(at: object, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(str(at))).total_seconds()
    except (ValueError, TypeError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Changes:
    """What is different since the last good session of this rig.

    Attributes:
        since: that session; "" when there was none.
        lines: for the operator, one a change.
        as_json: ``{"since", "session", "changes": {section: {key: {"before", "now"}}}}``.
    """

    since: str = ""
    lines: tuple[str, ...] = ()
    as_json: Mapping[str, Any] = field(default_factory=dict)


def describe_rig(
    *,
    packages: Mapping[str, str] | None = None,
    devices: Mapping[str, Any] | None = None,
    device_states: Mapping[str, Any] | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return what can be compared, one flat section for each thing given; secrets are masked, so that only names show."""
    from .masking import mask_json

    sections: dict[str, dict[str, Any]] = {}
    if packages is not None:
        sections["packages"] = dict(packages)
    if devices is not None:
        sections["drivers"] = {name: _driver_version(options) for name, options in devices.items()}
    if device_states is not None:
        sections["device_states"] = _flat(device_states)
    if configuration is not None:
        sections["configuration"] = _flat(mask_json(json.loads(json.dumps(configuration, default=str))))
    return sections


def changes_since_last_good(state_directory: Path, current: Mapping[str, Mapping[str, Any]]) -> Changes:
    """Compare the sections given with those of the last good session; a section that it did not keep is left out."""
    last = _read(state_directory / LAST_GOOD)
    before_sections = last.get("sections")
    if not isinstance(before_sections, dict):
        return Changes()
    lines, changes = [], {}
    for section, now in current.items():
        before = before_sections.get(section)
        if not isinstance(before, dict):
            continue
        different = {key for key in {*before, *now} if _plain(before.get(key)) != _plain(now.get(key))}
        if different:
            found = {key: {"before": before.get(key), "now": _plain(now.get(key))} for key in sorted(different)}
            changes[section] = found
            lines += [_line(section, key, pair, key in before, key in now) for key, pair in found.items()]
    since, session = str(last.get("at", "")), str(last.get("session", ""))
    return Changes(since, tuple(lines), {"since": since, "session": session, "changes": changes})


def keep_last_good(state_directory: Path, current: Mapping[str, Mapping[str, Any]], session: str, now: datetime) -> None:
    """Remember the rig as it was in a session that passed.

    Raises:
        OSError: the state directory cannot be written.
    """
    state_directory.mkdir(parents=True, exist_ok=True)
    content = {"session": session, "at": now.isoformat(timespec="seconds"), "sections": current}
    write_json(state_directory / LAST_GOOD, content)


def _line(section: str, key: str, pair: Mapping[str, Any], was: bool, now_is: bool) -> str:
    words = {"packages": "package", "drivers": "driver of", "device_states": "state of", "configuration": "rig file:"}
    head = f"{words.get(section, section)} {key}"
    if not was:
        return f"{head} is new: {pair['now']}"
    if not now_is:
        return f"{head} is gone (was {pair['before']})"
    return f"{head}: {pair['before']} -> {pair['now']}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flat(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {prefix: value} if prefix else {}


def _driver_version(options: Any) -> str:
    """Return a driver's name with the version or the content hash of its module, if that is loaded."""
    driver = str(options.get("driver", "")) if isinstance(options, Mapping) else str(options)
    module = sys.modules.get(driver.partition(":")[0])
    version, path = getattr(module, "__version__", None), getattr(module, "__file__", None)
    if version:
        return f"{driver} {version}"
    if path:
        import hashlib

        try:
            return f"{driver} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"
        except OSError:
            return driver
    return driver
