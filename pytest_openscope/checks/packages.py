"""Python packages against the rig's lock file."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from ..system import command_line
from .result import FAIL, PASS, SKIP, CheckResult

_SHOWN = 10
_NOT_LOCKED = ("editable", "virtual", "directory")


@dataclass(frozen=True)
class Locked:
    """The versions of one package that count here, and whether the file says that this system needs it."""

    versions: tuple[str, ...]
    required: bool = True


def check_packages(lock_file: str | None, folder: Path) -> CheckResult:
    """Compare the installed packages with the rig's lock file (``name==version`` lines, ``uv.lock`` or ``pylock.toml``)."""
    if not lock_file:
        return CheckResult(SKIP, "no packages_lock is declared")
    path = folder / lock_file
    try:
        wanted = read_lock(path)
    except (OSError, ValueError) as error:
        return CheckResult(FAIL, f"{path}: {error}", "make it: pip freeze > requirements.lock")
    wrong = []
    for name, locked in wanted.items():
        try:
            present = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            present = "missing"
        if present == "missing" and not locked.required:
            continue
        if not any(_same(present, version) for version in locked.versions):
            wrong.append(f"{name} {present} (lock: {' or '.join(locked.versions)})")
    if wrong:
        shown = ", ".join(wrong[:_SHOWN]) + (f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        install = "uv sync" if path.name == "uv.lock" else command_line(["pip", "install", "-r", str(lock_file)])
        return CheckResult(FAIL, shown, f"{install}, or make the lock file anew", len(wrong), "differences", 0)
    return CheckResult(PASS, f"{len(wanted)} packages as in {lock_file}", "", 0, "differences", 0)


def _same(present: str, wanted: str) -> bool:
    try:
        return present == wanted or Version(present) == Version(wanted)
    except InvalidVersion:
        return False


def read_lock(path: Path) -> dict[str, Locked]:
    """Return what the lock file says of each package that has an exact version in it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no exact version, or is no TOML.
    """
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix in (".toml", ".lock") and "[[package" in text:
        content = tomllib.loads(text)
        found = _uv_lock(content["package"]) if content.get("package") else _pylock(content.get("packages") or [])
    else:
        found = _requirements(text)
    if not found:
        raise ValueError("no exact versions in it")
    return found


def _requirements(text: str) -> dict[str, Locked]:
    found: dict[str, Locked] = {}
    for line in text.replace("\\\n", " ").splitlines():
        try:
            requirement = Requirement(line.partition("#")[0].partition(" --hash")[0])
        except InvalidRequirement:  # a blank line, an option, a path
            continue
        pins = [one.version for one in requirement.specifier if one.operator in ("==", "===")]
        if pins and _applies(str(requirement.marker or "")):
            found[requirement.name] = Locked((pins[0],))
    return found


def _pylock(entries: Iterable[Mapping[str, Any]]) -> dict[str, Locked]:
    return {
        str(entry["name"]): Locked((str(entry["version"]),))
        for entry in entries
        if "version" in entry and "directory" not in entry and _applies(str(entry.get("marker") or ""))
    }


def _uv_lock(entries: Iterable[Mapping[str, Any]]) -> dict[str, Locked]:
    """A ``uv.lock`` serves all systems and all extras: only what the project itself needs here must be installed."""
    entries = list(entries)
    roots = [entry for entry in entries if _is_local(entry)]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if not _is_local(entry) and "version" in entry and _any_applies(entry.get("resolution-markers")):
            by_name.setdefault(str(entry["name"]), []).append(entry)
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        for dependency in waiting.pop().get("dependencies") or []:
            name = str(dependency.get("name"))
            if name not in needed and _applies(str(dependency.get("marker") or "")):
                needed.add(name)
                waiting += by_name.get(name, [])
    return {
        name: Locked(tuple(str(entry["version"]) for entry in same), not roots or name in needed)
        for name, same in by_name.items()
    }


def _is_local(entry: Mapping[str, Any]) -> bool:
    source = entry.get("source")
    return isinstance(source, Mapping) and any(kind in source for kind in _NOT_LOCKED)


def _any_applies(markers: object) -> bool:
    return not isinstance(markers, list) or not markers or any(_applies(str(marker)) for marker in markers)


def _applies(marker: str) -> bool:
    """Tell whether an environment marker is true here; one that asks for an extra, or cannot be read, is not."""
    if not marker.strip():
        return True
    try:
        return Marker(marker).evaluate({"extra": ""})
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return False
