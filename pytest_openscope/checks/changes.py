"""What is different on a rig since its last good session, which ``last_good.json`` in its state directory describes."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import math
import operator
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..system import json_bytes, make_private_folder, read_json, write_json

LAST_GOOD = "last_good.json"
#: Two readings of the same thing differ by noise.
_SAME_READING = 0.001
#: What matters to a rig, in the order in which it is told; packages come last, in one line.
_WORDS = {
    "drivers": "driver of",
    "device_states": "state of",
    "configuration": "rig file:",
    "python": "Python",
    "repositories": "repository",
}
_NAMED_PACKAGES = 5


@dataclass(frozen=True)
class Changes:
    """What is different since the last good session of this rig.

    Attributes:
        lines: for the operator.
        as_json: ``{"since", "session", "changes": {section: {key: {"before", "now"}}}}``.
    """

    lines: tuple[str, ...] = ()
    as_json: Mapping[str, Any] = field(default_factory=dict)


def describe_rig(
    *,
    packages: Mapping[str, str] | None = None,
    devices: Mapping[str, Any] | None = None,
    device_states: Mapping[str, Any] | None = None,
    configuration: Mapping[str, Any] | None = None,
    python: str | None = None,
    repositories: Mapping[str, str] | None = None,
    rig_dir: Path | None = None,
    secrets: Iterable[str] = (),
) -> dict[str, dict[str, Any]]:
    """Return what can be compared, one flat section for each thing given; secrets are masked, so that only names show."""
    from ..log import mask_json

    hidden = frozenset(secrets)
    sections: dict[str, Any] = {
        "packages": packages,
        "python": python and {"version": python},
        "repositories": repositories,
        "drivers": devices and {name: _driver(options, rig_dir) for name, options in devices.items()},
        # Masked before it is flattened: whether a value is secret shows in the name of its key.
        "device_states": device_states and _flat(mask_json(_plain(device_states), hidden)),
        "configuration": configuration and _flat(mask_json(_plain(configuration), hidden)),
    }
    return {section: dict(content) for section, content in sections.items() if content is not None}


def last_good(state_directory: Path, rig_id: str) -> dict[str, Any]:
    """Return what is kept of the last good session of a rig; nothing where the file is missing, damaged or another rig's."""
    content = read_json(state_directory / LAST_GOOD) or {}
    return content if content.get("rig_id") == rig_id and isinstance(content.get("sections"), dict) else {}


def compare(last: Mapping[str, Any], current: Mapping[str, Mapping[str, Any]]) -> Changes:
    """Compare the sections given with those of the last good session; a section that it did not keep is left out.

    Of ``device_states`` only devices count that were open in both.
    """
    if not last:
        return Changes()
    lines, changes = [], {}
    for section in (*_WORDS, "packages"):
        before, now = last["sections"].get(section), current.get(section)
        if not isinstance(before, dict) or now is None:
            continue
        found = _differences(section, before, _plain(now))
        if found:
            changes[section] = found
            if section == "packages":
                lines.append(_packages_line(found, before, now))
            else:
                lines += [_line(section, key, pair, key in before, key in now) for key, pair in found.items()]
    since, session = str(last.get("at", "")), str(last.get("session", ""))
    return Changes(tuple(lines), {"since": since, "session": session, "changes": changes})


def keep_last_good(
    state_directory: Path, current: Mapping[str, Mapping[str, Any]], session: str, now: datetime, rig_id: str
) -> None:
    """Remember the rig as it was in a session that passed.

    Raises:
        OSError: the state directory cannot be written.
    """
    make_private_folder(state_directory)
    content = {"rig_id": rig_id, "session": session, "at": now.isoformat(timespec="seconds"), "sections": current}
    write_json(state_directory / LAST_GOOD, content)


def _differences(section: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    keys = sorted({*before, *now})
    missing: Any = object()
    same: Callable[[Any, Any], bool] = operator.eq
    if section == "device_states":
        devices = [{key.partition(".")[0] for key in states} for states in (before, now)]
        keys = [key for key in keys if all(key.partition(".")[0] in known for known in devices)]
        missing, same = None, _same
    changed = (key for key in keys if not same(before.get(key, missing), now.get(key, missing)))
    return {key: {"before": before.get(key), "now": now.get(key)} for key in changed}


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        return math.isclose(before, now, rel_tol=_SAME_READING)
    return bool(before == now)


def _packages_line(found: Mapping[str, Mapping[str, Any]], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return ``64 packages new, 2 changed: numpy 2.4.5 -> 2.4.6, …``; the file has them all."""
    changed = [f"{name} {pair['before']} -> {pair['now']}" for name, pair in found.items() if name in before and name in now]
    groups = [
        ("new", [f"{name} {now[name]}" for name in found if name not in before]),
        ("gone", [f"{name} {before[name]}" for name in found if name not in now]),
        ("changed", changed),
    ]
    told: list[str] = []
    for what, names in groups:
        if names:
            count = f"{len(names)} {what}" if told else f"{len(names)} package{'s'[: len(names) > 1]} {what}"
            more = ", …" if len(names) > _NAMED_PACKAGES else ""
            # Names of many new packages say nothing; a few, and the changed ones, do.
            show = names[:_NAMED_PACKAGES] if what == "changed" or not more else []
            told.append(f"{count}: {', '.join(show)}{more}" if show else count)
    return ", ".join(told)


def _line(section: str, key: str, pair: Mapping[str, Any], was: bool, now_is: bool) -> str:
    head = f"{_WORDS[section]} {key}"
    if not was:
        return f"{head} is new: {pair['now']}"
    if not now_is:
        return f"{head} is gone (was {pair['before']})"
    return f"{head}: {pair['before']} -> {pair['now']}"


def _plain(value: Any) -> Any:
    """Return what a value is after it was kept: NaN, say, as null."""
    return json.loads(json_bytes(value))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flat(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {prefix: value} if prefix else {}


def _driver(options: Any, rig_dir: Path | None) -> str:
    """Return a driver's name with the hash of its source, found as the import would find it, without importing anything."""
    driver = str(options.get("driver", "")) if isinstance(options, Mapping) else str(options)
    module, colon, _ = driver.partition(":")
    path = _source(module, rig_dir) if colon else None
    try:
        return driver if path is None else f"{driver} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    except OSError:
        return driver


def _source(module: str, rig_dir: Path | None) -> Path | None:
    """Return the file of a dotted module; packages on the way are looked into, not run."""
    places: list[str] | None = [*sys.path, str(rig_dir)] if rig_dir is not None else list(sys.path)
    found = None
    for part in module.split("."):
        try:
            # By its last name alone: a namespace package would be looked up in its parent, which is not imported.
            found = importlib.machinery.PathFinder.find_spec(part, places)
            if found is None:
                return None
            places = list(found.submodule_search_locations or [])
        except (ImportError, ValueError):
            return None
    return Path(found.origin) if found is not None and found.has_location and found.origin else None
