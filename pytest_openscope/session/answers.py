"""What was answered last on this rig; offered as default the next time."""

from __future__ import annotations

import json
from pathlib import Path

from ..system import make_private_folder, write_json

_FILE = "last_answers.json"


def last_answers(state_directory: Path) -> dict[str, str]:
    """Return the last answers by key; empty when there are none or they cannot be read."""
    try:
        found = json.loads((state_directory / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def remember_answers(state_directory: Path, answers: dict[str, str]) -> None:
    """Keep the answers for the next session; a convenience, so that a failure changes nothing."""
    try:
        make_private_folder(state_directory)
        write_json(state_directory / _FILE, {**last_answers(state_directory), **answers})
    except OSError:
        return
