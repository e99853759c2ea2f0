"""One source of values at a time: which keys it may have, older spellings, types. Mistakes name the source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from ..log import mask_text
from ..records import Mistake
from .coerce import CONTROL_REMEDY, Wrong, check_section, coerce, control_characters, has_placeholder, show
from .frozen import record
from .merge import copy_of
from .reading import kind_of
from .schema import (
    DEVICE_KEYS,
    FLAT_GITHUB,
    GITHUB_KEYS,
    KNOWN_IN_RIG,
    KNOWN_PARAMETERS,
    PARAMETERS,
    PIPELINES,
    READINESS_KEYS,
    REQUIREMENTS_KEYS,
    RIG_KEYS,
)
from .suggest import nearest

RIG_NAMES = frozenset(key.name for key in RIG_KEYS)
_OFF = ("", "none", "disabled")
#: GitHub's limit; its lists are filtered by labels with commas between them.
_LABEL_CHARS = 50


@record(frozen=False)
class Findings:
    """Mistakes and notices, collected while reading."""

    mistakes: list[Mistake] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    unknown: list[Mistake] = field(default_factory=list)

    def wrong(self, where: str, key: str, problem: str, remedy: str = "") -> None:
        """Add a mistake."""
        self.mistakes.append(Mistake(where, problem, remedy, key))


@record(frozen=False)
class RigLayer:
    """The rig file, sorted: its own blocks, the lab's values, defaults for parameters."""

    rig: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)


def sort_rig(raw: Mapping[str, Any], where: str, findings: Findings) -> RigLayer:
    """Sort the rig file's top level and check it."""
    layer = RigLayer(raw=copy_of(raw))
    for key, value in raw.items():
        if key in PIPELINES:
            findings.wrong(where, key, "a rig file cannot hold pipelines", "move it into a parameter file")
        elif key in RIG_NAMES:
            layer.rig[key] = value
        elif key in KNOWN_IN_RIG:
            layer.defaults[key] = value
        elif near := nearest(key, (*KNOWN_IN_RIG, *PIPELINES)):
            remedy = f"did you mean {near}? (a value of the lab's own goes under 'values:')"
            findings.wrong(where, key, "unknown key", remedy)
        else:
            layer.values[key] = value
    _take_section(layer, "values", layer.values, where, findings)
    section = layer.rig.get("parameters")
    if isinstance(section, dict):
        for key in section:
            if key in PIPELINES:
                findings.wrong(where, f"parameters.{key}", "a rig file cannot hold pipelines", "move it into a parameter file")
        check_near_matches(section, KNOWN_PARAMETERS, where, "parameters.", findings)
    _take_section(layer, "parameters", layer.defaults, where, findings)
    check_rig_blocks(layer.rig, where, findings)
    layer.defaults = check_parameters(layer.defaults, where, findings)
    _say_what_is_not_used(layer, where, findings)
    return layer


#: Keys that say which class drives a device: ours, and those of other programs' rig files (happi's ``device_class``).
_DRIVER_KEYS = frozenset({"driver", "device_class", "class", "class_name"})


def _say_what_is_not_used(layer: RigLayer, where: str, findings: Findings) -> None:
    """Tell once of values that look like devices, or like the rig's id, and are taken as neither."""
    alike = [key for key, value in layer.values.items() if _looks_like_devices(value)]
    if alike and not layer.rig.get("devices"):
        verb = "looks" if len(alike) == 1 else "look"
        findings.notices.append(
            f"{where}: {', '.join(alike)}: {verb} like devices, and are the lab's own values"
            " -> to have them opened, simulated and checked, write 'devices: {NAME: {driver: \"module:Class\"}}'"
        )
    for key, value in layer.values.items():
        name = layer.rig.get("rig_id")
        if key.lower().replace("-", "_") in ("rig_name", "rig", "rigid") and isinstance(value, str) and value != name:
            used = f"rig_id, {name!r}" if name else "the host's name, since there is no rig_id"
            findings.notices.append(f"{where}: {key}: not used as the rig's name; that is {used} -> write 'rig_id: {value}'")


def _looks_like_devices(value: Any) -> bool:
    """Tell whether a value is one device, or several of them as a list or a mapping."""
    if isinstance(value, dict):
        if not _DRIVER_KEYS.isdisjoint(value):
            return True
        value = list(value.values())
    return isinstance(value, list) and any(isinstance(one, dict) and not _DRIVER_KEYS.isdisjoint(one) for one in value)


def _take_section(layer: RigLayer, name: str, target: dict[str, Any], where: str, findings: Findings) -> None:
    section = layer.rig.get(name)
    if section is None:
        return
    if not isinstance(section, dict):
        findings.wrong(where, name, f"a mapping expected, not {show(section, name)}", "write 'name: value' pairs")
        return
    for key, value in section.items():
        if key in target:
            findings.wrong(where, f"{name}.{key}", "stands at the top level too", "remove one of the two")
        elif key not in PIPELINES or name == "values":
            target[key] = value


def check_near_matches(layer: Iterable[str], known: Iterable[str], where: str, prefix: str, findings: Findings) -> None:
    """Call an unknown key that looks like a known one a mistake; others are the experimenter's own."""
    names = set(known)
    for key in layer:
        if key not in names and (near := nearest(key, names)):
            findings.wrong(where, prefix + key, "unknown key", f"did you mean {near}?")


def check_parameters(layer: Mapping[str, Any], where: str, findings: Findings) -> dict[str, Any]:
    """Return the layer with older spellings translated and ids as text; its known keys are checked.

    Texts with placeholders pass: they are judged when they are expanded.
    """
    result = _translate(copy_of(layer), where, findings)
    for name, value in list(result.items()):
        key = PARAMETERS.get(name)
        if key is None or value is None or name in PIPELINES:
            continue
        if has_placeholder(value) and key.kind not in ("mapping", "list"):
            if key.kind == "path" and (odd := control_characters(value)):
                findings.wrong(where, name, odd, CONTROL_REMEDY)
            continue
        try:
            typed = coerce(key, value, name)
        except Wrong as wrong:
            findings.wrong(where, name, wrong.problem, wrong.remedy)
            del result[name]
            continue
        if key.kind == "id":
            result[name] = typed
        if name == "github_issue":
            _check_github(typed, where, findings)
    return result


def _translate(layer: dict[str, Any], where: str, findings: Findings) -> dict[str, Any]:
    for name in ("session_sync_role", "session_sync_mode"):
        if isinstance(layer.get(name), str) and layer[name].strip().lower() in _OFF:
            layer[name] = None
    if layer.get("session_sync_mode") is not None:
        layer.setdefault("session_sync_role", layer["session_sync_mode"])
        if layer["session_sync_role"] == layer["session_sync_mode"]:
            del layer["session_sync_mode"]
    flat = {option: layer[name] for name, option in FLAT_GITHUB.items() if name in layer}
    block = layer.get("github_issue")
    if flat and (block is None or isinstance(block, dict)):
        for name in FLAT_GITHUB:
            layer.pop(name, None)
        layer["github_issue"] = {**flat, **(block or {})}
    return layer


def _check_github(block: dict[str, Any], where: str, findings: Findings) -> None:
    _, mistakes, notices = check_section(where, "github_issue", block, GITHUB_KEYS, "notice")
    findings.mistakes.extend(mistakes)
    findings.notices.extend(notices)
    texts = {name: value for name, value in block.items() if isinstance(value, str) and not has_placeholder(value)}
    repo, token, address = texts.get("repo"), texts.get("token_env"), texts.get("api_base_url")
    if repo is not None and not re.fullmatch(r"[\w.\-]+/[\w.\-]+", repo):
        findings.wrong(where, "github_issue.repo", f"{show(repo)} is no owner/name", "write e.g. my-lab/my-experiments")
    if token is not None and (not token.replace("_", "a").isalnum() or mask_text(token) != token):
        findings.wrong(
            where, "github_issue.token_env", "is no name of an environment variable", "give the variable's name, not the token"
        )
    if address is not None and not re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?", address):
        problem = f"{show(mask_text(address))} is no address of a server without user and password"
        findings.wrong(where, "github_issue.api_base_url", problem, "write e.g. https://github.example.org/api/v3")
    labels = block.get("labels")
    for label in [labels] if isinstance(labels, str) else labels if isinstance(labels, (list, tuple)) else ():
        if isinstance(label, str) and not (0 < len(label.strip()) <= _LABEL_CHARS and "," not in label):
            problem = f"{show(label)} is no label that GitHub can find again"
            findings.wrong(where, "github_issue.labels", problem, f"use 1 to {_LABEL_CHARS} characters and no comma")


def check_rig_blocks(rig: dict[str, Any], where: str, findings: Findings) -> None:
    """Check ``devices``, ``requirements``, ``readiness``, ``rig_id`` and ``state_directory``."""
    for key in RIG_KEYS:
        value = rig.get(key.name)
        if value is None or key.name in ("values", "parameters"):
            continue
        try:
            typed = value if has_placeholder(value) and key.kind != "mapping" else coerce(key, value, key.name)
        except Wrong as wrong:
            findings.wrong(where, key.name, wrong.problem, wrong.remedy)
            rig.pop(key.name)
            continue
        if key.name == "rig_id" and not typed:
            findings.wrong(where, "rig_id", "is empty", "give a name, or remove the key: the host's name is used then")
        rig[key.name] = typed
    for name, keys in (("requirements", REQUIREMENTS_KEYS), ("readiness", READINESS_KEYS)):
        if rig.get(name):
            _, mistakes, _ = check_section(where, name, rig[name], keys, "mistake")
            findings.mistakes.extend(mistakes)
    for name, options in (rig.get("devices") or {}).items():
        _check_device(name, options, where, findings)


def _check_device(name: str, options: Any, where: str, findings: Findings) -> None:
    path = f"devices.{name}"
    if not name.strip() or any(char in ".=*:[]" or char.isspace() for char in name):
        findings.wrong(where, path, "a device's name cannot hold blanks or . = * : [ ]", "rename it, e.g. body_camera")
        return
    if not isinstance(options, dict):
        findings.wrong(
            where, path, f"a mapping expected, not {kind_of(options)}", 'write {driver: "module:Class", params: {…}}'
        )
        return
    _, mistakes, _ = check_section(where, path, options, DEVICE_KEYS, "allowed")
    findings.mistakes.extend(mistakes)
    if not options.get("driver") and not any("driver" in mistake.remedy or "driver" in mistake.key for mistake in mistakes):
        findings.wrong(where, f"{path}.driver", "is missing", 'name the driver: "module:Class" or a ready-made one')
