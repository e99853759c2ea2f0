"""The routing manifest (``{"entries": [...]}``), in which steps tell downstream programs where files belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..system import write_json
from .failures import ModuleFailed


def read_entries(manifest: Path) -> dict[str, Any]:
    """Return a manifest's content; one without entries where there is no file.

    Raises:
        ModuleFailed: the file that is there is no manifest.
    """
    if not manifest.exists():
        return {"entries": []}
    try:
        data: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8-sig"))
        known = data["entries"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModuleFailed(f"{manifest} is no routing manifest: {error}") from error
    if not isinstance(known, list):
        raise ModuleFailed(f"{manifest} is no routing manifest: its entries are no list")
    return data


def add_entry(manifest: Path, entry: dict[str, Any]) -> None:
    """Append an entry, once, to a manifest that other programs may be reading.

    Raises:
        ModuleFailed: the file that is there is no manifest; it stays untouched.
    """
    data = read_entries(manifest)
    if entry not in data["entries"]:
        data["entries"].append(entry)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_json(manifest, data)


def as_written(path: Path, session_folder: Path) -> str:
    """Return a path as manifests write it: with ``/``, relative to the session folder where it lies in it."""
    try:
        return path.resolve().relative_to(session_folder.resolve()).as_posix()
    except ValueError:
        return path.as_posix()
