"""Is this rig ready? The results of its validation, kept per rig.

``validation.json`` in the rig's state directory holds the last result of every check. A check's name is ``group``,
``group.part`` or ``group[thing]``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..system import command_line, format_duration, make_private_folder, parse_duration_s, read_json, write_json
from .result import group_of, measured

VALIDATION = "validation.json"
#: Groups of the ready-made checks.
CHECK_GROUPS = (
    "configuration",
    "disk",
    "mirror",
    "devices",
    "executables",
    "acquisition",
    "repositories",
    "serial_ports",
    "tcp_ports",
    "environment",
    "processes",
    "packages",
    "python",
    "memory",
    "clock",
    "github",
)
_GOOD_ENOUGH = ("pass", "warn", "skip")
_DEFAULT_MAX_AGE_S = 86_400.0
#: Clocks are put right by seconds; more is a clock that was wrong.
_CLOCK_TOLERANCE_S = 300.0


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


def expanded_block(configuration: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the rig file's ``readiness``, typed and with its placeholders replaced, and what is wrong with it."""
    from ..config import Readiness, check, expand_section

    section = expand_section(Readiness, configuration.rig.readiness, configuration.expander())
    values, mistakes = check(Readiness, section, configuration.rig.path.name, "readiness")
    return dict(values), [str(mistake) for mistake in mistakes]


def _rigs(state_directory: Path) -> dict[str, dict[str, Any]]:
    """Return what is kept of each rig with this state directory, by its id; the one that was validated last comes first."""
    content = read_json(state_directory / VALIDATION) or {}
    return {str(content.get("rig_id") or ""): content, **_mappings(content.get("other_rigs"))}


def _mappings(value: Any) -> dict[str, dict[str, Any]]:
    """Return the mappings in a mapping; a damaged file may hold anything."""
    return {str(key): item for key, item in value.items() if isinstance(item, dict)} if isinstance(value, dict) else {}


def read_results(state_directory: Path, rig_id: str = "") -> dict[str, dict[str, Any]]:
    """Return the last result of every check of this rig; a missing or damaged file holds none."""
    rigs = _rigs(state_directory)
    content = rigs.get(rig_id, {}) if rig_id else next(iter(rigs.values()))
    return _mappings(content.get("checks"))


def keep_results(
    state_directory: Path,
    results: Iterable[Mapping[str, Any]],
    complete: bool = False,
    *,
    now: datetime | None = None,
    rig_id: str = "",
    rig_file: str = "",
) -> None:
    """Merge results into ``validation.json``.

    Args:
        results: each with ``check``, ``status`` and what else :class:`~.checks.result.CheckResult` has; ``expires_s`` where the
            check has its own age limit, ``at`` where it is from before, ``file`` where it is the lab's own.
        complete: the whole ready-made suite ran: results of it that did not come again (a device that the rig no longer has)
            are dropped.
        rig_id: whose they are; those of other rigs with the same state directory stay, under ``other_rigs``.

    Raises:
        OSError: the state directory cannot be written.
    """
    at = (now or datetime.now().astimezone()).isoformat(timespec="seconds")
    fresh = {str(result["check"]): {"at": at, **result} for result in results}
    kept = read_results(state_directory, rig_id)
    if complete:
        groups = {*CHECK_GROUPS, *(group_of(check) for check in fresh)}
        kept = {check: result for check, result in kept.items() if group_of(check) not in groups}
    make_private_folder(state_directory)
    content: dict[str, Any] = {"rig_id": rig_id, "rig_file": rig_file, "checks": {**kept, **fresh}}
    others = {key: rig for key, rig in _rigs(state_directory).items() if key not in ("", rig_id)}
    if others:
        content["other_rigs"] = {key: {part: rig.get(part) for part in ("rig_file", "checks")} for key, rig in others.items()}
    write_json(state_directory / VALIDATION, content)


def evaluate(
    block: Mapping[str, Any],
    state_directory: Path,
    now: datetime,
    *,
    rig_id: str = "",
    rig_file: str = "",
    declared: Mapping[str, Iterable[Any]] | None = None,
) -> Readiness:
    """Hold the kept results against the rig file's ``readiness``.

    ``require`` names checks or groups (nothing: all that ever ran); a result counts for ``max_age``, or for the check's own
    ``expires``. Warnings, and checks that had nothing to look at, do not hold a session back.

    Args:
        block: ``readiness``, placeholders replaced.
        declared: groups to the things that the rig file declares now: each needs a result, and no others count.
    """
    results = read_results(state_directory, rig_id)
    expected = {group: [f"{group}[{thing}]" for thing in things] for group, things in (declared or {}).items()}
    results = {
        check: result
        for check, result in results.items()
        if group_of(check) not in expected or check in expected[group_of(check)]
    }
    max_age_s = parse_duration_s(block.get("max_age") if block.get("max_age") is not None else _DEFAULT_MAX_AGE_S)
    required = block.get("require") or sorted({group_of(check) for check, result in results.items() if _is_there(result)})
    required = [required] if isinstance(required, str) else [str(name) for name in required]
    problems: dict[str, None] = {}
    concerned: list[str] = []
    for name in required:
        for check, problem in _problems_of(name, results, expected, max_age_s, now):
            problems[problem] = None
            concerned.append(check)
    if not required:
        problems["the rig was never validated"] = None
    if not problems:
        return Readiness(True)
    rig_file = rig_file or str(next(iter(_rigs(state_directory).values())).get("rig_file") or "RIG.yaml")
    files = dict.fromkeys(str(results[check]["file"]) for check in concerned if results.get(check, {}).get("file"))
    command = command_line(["pytest", "--rig-config", rig_file, "--validate-rig", *files])
    refuse = block.get("on_stale") != "warn"
    otherwise = ", or give --override-readiness REASON" if refuse else " (the session goes on: readiness.on_stale is warn)"
    message = f"the rig is not ready: {'; '.join(problems)} -> run: {command}{otherwise}"
    return Readiness(False, refuse, tuple(problems), message)


def _is_there(result: Mapping[str, Any]) -> bool:
    """A check of the lab's own whose file is gone is no check any more."""
    return not result.get("file") or Path(str(result["file"])).exists()


def _problems_of(
    name: str,
    results: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, list[str]],
    max_age_s: float,
    now: datetime,
) -> list[tuple[str, str]]:
    """Return check and problem of everything that a required name stands for."""
    mine = {check: result for check, result in results.items() if check == name or group_of(check) == name}
    missing = [check for check in expected.get(name, []) if check not in mine]
    if not mine and (missing or name not in expected):
        return [(name, f"{name} was never checked{_hint(name)}")]
    found = [(check, f"{check} was never checked") for check in missing]
    for check, result in mine.items():
        problem = _problem(check, result, max_age_s, now)
        found += [(check, problem)] if problem else []
    return found


def _problem(check: str, result: Mapping[str, Any], max_age_s: float, now: datetime) -> str:
    age_s = _age_s(result.get("at"), now)
    expires_s = result.get("expires_s")
    limit_s = expires_s if isinstance(expires_s, (int, float)) and 0 < expires_s < float("inf") else max_age_s
    ago = "at an unknown time" if age_s is None else f"{format_duration(max(0.0, age_s))} ago"
    if result.get("blocked_by"):
        return f"{check} could not be measured {ago}: {result['blocked_by']} failed"
    if result.get("status") not in _GOOD_ENOUGH:
        remedy = f" -> {result['remedy']}" if result.get("remedy") else ""
        numbers = measured(result.get("value"), str(result.get("unit") or ""), result.get("limit"))
        return f"{check} failed {ago}: {result.get('message', '')}".rstrip(": ") + numbers + remedy
    if age_s is not None and age_s < -_CLOCK_TOLERANCE_S:
        return f"{check} was checked {format_duration(-age_s)} in the future (was the clock set back?)"
    if age_s is None or age_s > limit_s:
        return f"{check} was checked {ago}, longer than {format_duration(limit_s)}"
    return ""


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, CHECK_GROUPS, n=1)
    if near and group_of(name) not in CHECK_GROUPS:
        return f" (did you mean {near[0]}?)"
    return "" if group_of(name) in CHECK_GROUPS else " (name the file of a check of your own behind --validate-rig)"


def _age_s(at: object, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(str(at))).total_seconds()
    except (ValueError, TypeError):
        return None
