"""The experiment notes file: where it is, what its head looks like, what its editor was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..records import METADATA
from ..system import write_json
from .context import ModuleContext, ModuleFailed

DEFAULT_FILENAME = "experiment_notes.txt"
_HEAD = ("# Experiment Notes", "# Created:", "# EditorPID:")


def notes_path(context: ModuleContext) -> Path:
    """Return ``experiment_notes_filename``; a relative one lies in the session folder."""
    return context.path(str(context.parameters.get("experiment_notes_filename") or DEFAULT_FILENAME))


def encoding(context: ModuleContext) -> str:
    """Return ``experiment_notes_encoding``, default UTF-8."""
    return str(context.parameters.get("experiment_notes_encoding") or "utf-8")


def create(context: ModuleContext, path: Path) -> bool:
    """Create the file with its head; one that exists stays as it is.

    Returns:
        Whether the file is new.
    """
    from datetime import datetime

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "x", encoding=encoding(context)) as stream:
            stream.write(f"{_HEAD[0]}\n{_HEAD[1]} {datetime.now().astimezone().isoformat(timespec='seconds')}\n\n")
    except FileExistsError:
        return False
    return True


def read(context: ModuleContext, path: Path) -> str:
    """Return what was written under the head, without blank lines around it; undecodable bytes become ``\\ufffd``."""
    name = encoding(context)
    text = path.read_bytes().decode("utf-8-sig" if name.lower().replace("_", "-") in ("utf-8", "utf8") else name, "replace")
    lines = text.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(_HEAD)):
        lines.pop(0)
    return "\n".join(lines).strip()


def remember_editor(context: ModuleContext, facts: dict[str, Any]) -> None:
    """Keep the editor's ``pid``, ``create_time`` and ``command`` for the step that closes it."""
    write_json(_editor_file(context), facts)


def known_editor(context: ModuleContext) -> dict[str, Any] | None:
    """Return what :func:`remember_editor` kept, or None."""
    try:
        facts = json.loads(_editor_file(context).read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and isinstance(facts.get("pid"), int) else None


def _editor_file(context: ModuleContext) -> Path:
    return context.session_folder / METADATA / "experiment_notes_editor.json"


def add_to_manifest(context: ModuleContext, manifest: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a routing manifest (``{"entries": [...]}``), which other programs may be reading.

    Raises:
        ModuleFailed: the file that is there is no manifest; it stays untouched.
    """
    data: dict[str, Any] = {"entries": []}
    if manifest.exists():
        try:
            data = json.loads(manifest.read_text(encoding="utf-8-sig"))
            known = data["entries"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModuleFailed(f"{manifest} is no routing manifest: {error}") from error
        if not isinstance(known, list):
            raise ModuleFailed(f"{manifest} is no routing manifest: its entries are no list")
    if entry not in data["entries"]:
        data["entries"].append(entry)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_json(manifest, data)


def relative_to_session(context: ModuleContext, path: Path) -> str:
    """Return the path as manifests write it: with ``/``, relative to the session folder where it lies in it."""
    try:
        return path.resolve().relative_to(context.session_folder.resolve()).as_posix()
    except ValueError:
        return path.as_posix()
