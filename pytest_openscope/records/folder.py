"""The session folder: its name, and making it."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta
from pathlib import Path

METADATA = "launcher_metadata"
#: The longest name in a folder: characters on Windows, bytes elsewhere.
MAX_NAME = 255
_REFUSED = '<>:"/\\|?*'
#: Names of devices on Windows, alone or with anything behind a dot; superscript digits count as digits there.
_RESERVED = {
    "con",
    "conin$",
    "conout$",
    "prn",
    "aux",
    "nul",
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"),
}


def is_folder_name(name: str) -> bool:
    """Tell whether every system can have a folder of this name, and gives it back unchanged."""
    odd = any(char in _REFUSED or ord(char) < 32 for char in name)
    return bool(name) and not odd and name[-1] not in ". " and not is_reserved(name)


def is_reserved(name: str) -> bool:
    """Tell whether Windows takes a name for that of a device."""
    return name.partition(".")[0].strip().lower() in _RESERVED


def safe_name(name: str, otherwise: str) -> str:
    """Return ``name`` as that of a file or folder that every system can have; ``otherwise`` where nothing is left of it."""
    safe = _without_odd(name) or otherwise
    return f"_{safe}" if is_reserved(safe) else safe


def _without_odd(name: str) -> str:
    return "".join("-" if char in _REFUSED or ord(char) < 32 else char for char in name).strip(" .")


def name_problem(name: str) -> str:
    """Say why no file system of this computer can have a file or folder of this name ("" when one can)."""
    try:
        size = len(name.encode("utf-16-le")) // 2 if sys.platform == "win32" else len(os.fsencode(name))
    except UnicodeEncodeError as error:
        return f"holds characters that file names cannot have here ({name[error.start : error.end]!r})"
    unit = "characters" if sys.platform == "win32" else "bytes"
    return f"gives a folder name of {size} {unit}; file systems take {MAX_NAME}" if size > MAX_NAME else ""


def session_name(subject_id: str, start: datetime) -> str:
    """Return ``<subject_id>_<YYYY-MM-DD>_<HH-MM-SS>``, characters that no file name can hold replaced by ``-``."""
    return safe_name(f"{_without_odd(subject_id) or 'subject'}_{start:%Y-%m-%d_%H-%M-%S}", "")


def create_session_folder(root: Path, subject_id: str, start: datetime, given: str | None = None) -> Path:
    """Create a folder that no other session has, with its ``launcher_metadata``.

    A generated name that exists takes the next free second; a given one that exists is refused.

    Raises:
        FileExistsError: the given name is taken.
        OSError: the folder cannot be created.
    """
    root.mkdir(parents=True, exist_ok=True)
    for attempt in range(3600):
        folder = root / (given or session_name(subject_id, start + timedelta(seconds=attempt)))
        try:
            folder.mkdir()
        except FileExistsError:
            if given:
                raise
            continue
        (folder / METADATA).mkdir()
        return folder
    raise FileExistsError(f"no free session name within an hour of {start} in {root}")
