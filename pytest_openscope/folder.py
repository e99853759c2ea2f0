"""The session folder: its name, and files that others may read while they are replaced."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

METADATA = "launcher_metadata"
#: Names of devices on Windows, alone or with anything behind a dot.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
#: Windows refuses to replace a file that a reader holds open without delete sharing; most let go within this time.
SHARING_RETRY_S = 2.5


def is_folder_name(name: str) -> bool:
    """Tell whether every system can have a folder of this name, and gives it back unchanged."""
    odd = any(char in '<>:"/\\|?*' or ord(char) < 32 for char in name)
    return bool(name) and not odd and name[-1] not in ". " and not is_reserved(name)


def is_reserved(name: str) -> bool:
    """Tell whether Windows takes a name for that of a device."""
    return name.partition(".")[0].strip().lower() in _RESERVED


def session_name(subject_id: str, start: datetime) -> str:
    """Return ``<subject_id>_<YYYY-MM-DD>_<HH-MM-SS>``, characters that no file name can hold replaced by ``-``."""
    safe = "".join("-" if char in '<>:"/\\|?*' or ord(char) < 32 else char for char in subject_id).strip(" .") or "subject"
    name = f"{safe}_{start:%Y-%m-%d_%H-%M-%S}"
    return f"_{name}" if is_reserved(name) else name


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


def replace_file(source: Path, target: Path) -> None:
    """``os.replace`` that waits out a reader on Windows for up to :data:`SHARING_RETRY_S`."""
    deadline = time.monotonic() + SHARING_RETRY_S
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part; it is on the disk on return.

    Raises:
        OSError: the disk is full or the folder is not writable; the old content stays and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        replace_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def json_bytes(value: Any, default: Callable[[Any], Any] = str) -> bytes:
    """Return indented UTF-8 JSON that any reader accepts: lone surrogates escaped, NaN and infinities as null."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=default, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=default)
    try:
        return (text + "\n").encode("utf-8")
    except UnicodeEncodeError:
        return (text + "\n").encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with :func:`write_atomic`."""
    write_atomic(path, json_bytes(value))
