"""Where a session's files go: the output root and the rig's state directory. Nothing is created here."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..records import safe_name
from ..system import missing_drive
from .fields import CONTROL_REMEDY, Wrong, control_characters, has_placeholder

DRY_RUNS = "dry_runs"
_MISSING, _READ_ONLY = "does not exist", "is not writable"
_ANOTHER = "give another one with --output-root"


def foreign_path(text: str) -> str:
    """Say why a path cannot exist on this system ("" when it can)."""
    if sys.platform == "win32":
        return ""
    if text[1:2] == ":" and text[0].isalpha() and text[2:3] in ("", "/", "\\"):
        return "is a Windows drive path, and this is no Windows"
    return "is a Windows share, and this is no Windows" if text.startswith("\\\\") else ""


def is_relative(text: str, anywhere: bool) -> bool:
    """Tell whether the place that a path means depends on some working directory or drive.

    Args:
        text: the path; one that begins with a placeholder is not judged.
        anywhere: take the full paths of any system, not of this one only, for such (a rig's file is rehearsed elsewhere).
    """
    if has_placeholder(text) and text[:1] in ("{", "$", "%"):
        return False
    # Neither \logs nor D:logs is absolute for Windows. On other systems drives and shares are foreign, not relative.
    if PureWindowsPath(text).is_absolute():
        return False
    return not (PurePosixPath(text).is_absolute() and (anywhere or sys.platform != "win32"))


def local_path(text: str, cwd: Path) -> Path:
    """Return the absolute path that ``text`` means here: ``~`` expanded, relative to ``cwd``, both slashes understood."""
    if sys.platform != "win32":
        text = text.replace("\\", "/")
    path = Path(text)
    # Not normpath: a path like ``D:data`` is relative to the folder that is current on that drive.
    return Path(os.path.abspath(cwd / (path.expanduser() if text.startswith("~") else path)))  # noqa: PTH100 - resolve() follows links


def usable_folder(path: Path) -> str:
    """Say why files cannot be created in a folder that may not exist yet ("" when they can)."""
    for probe in (path, *path.parents):
        try:
            facts = probe.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            return f"{probe} cannot be reached: {getattr(error, 'strerror', None) or error}"
        if not stat.S_ISDIR(facts.st_mode):
            return f"{probe} is a file, not a folder"
        return "" if os.access(probe, os.W_OK | os.X_OK) else f"{probe} {_READ_ONLY}"
    return missing_drive(probe) or f"{probe} {_MISSING}"


def output_root(text: str | None, cwd: Path, dry_run: bool, *, look: bool = True) -> tuple[Path, str]:
    """Return the folder that will hold the session folder, and a notice ("" mostly).

    A folder whose parent is missing too is made with the session and told: mostly it is a slip of the pen.

    A dry run has its own root, ``dry_runs`` under the output root; under ``cwd`` where the output root is no good. Without
    ``look`` nothing is touched: the validation of a rig looks itself, from a process that may hang.

    Raises:
        Wrong: no root, or one in which nothing can be created.
    """
    if text and re.search(r"\{(output_)?session_(folder|uuid)\}", text):
        raise Wrong("the output root cannot depend on the session's name or folder", "remove the placeholder")
    if odd := control_characters(text or ""):
        raise Wrong(odd, CONTROL_REMEDY)
    try:
        root = _usable_root(text, cwd, dry_run, look or dry_run)
    except Wrong as wrong:
        root = cwd / DRY_RUNS
        if not dry_run:
            raise
        if unusable := usable_folder(root):
            raise Wrong(f"{wrong.problem}; nor can {root}: {unusable}", _ANOTHER) from None
        return root, f"{wrong.problem}; the dry run goes to {root}" if text else ""
    made = root.parent if dry_run else root
    return root, f"created {made} (new)" if look and not made.parent.exists() else ""


def _usable_root(text: str | None, cwd: Path, dry_run: bool, look: bool) -> Path:
    if text is None or not text.strip():
        raise Wrong("no output root is given", "set output_root_folder in the rig file, or give --output-root")
    if foreign := foreign_path(text):
        raise Wrong(f"{text!r} {foreign}", "give a path of this system with --output-root")
    root = local_path(text, cwd)
    root = root / DRY_RUNS if dry_run else root
    if look and (unusable := usable_folder(root)):
        remedies = {_MISSING: f"create it, or {_ANOTHER}", _READ_ONLY: f"ask for the right to write there, or {_ANOTHER}"}
        remedy = next((remedy for end, remedy in remedies.items() if unusable.endswith(end)), _ANOTHER)
        raise Wrong(f"{text!r} cannot be used: {unusable}", remedy)
    return root


def default_state_directory(rig_id: str, environ: Mapping[str, str]) -> Path:
    """Return the rig's folder below the platform's place for state of this user."""
    name = safe_name(rig_id, "rig")
    home = Path(environ.get("USERPROFILE" if sys.platform == "win32" else "HOME") or Path.home())
    if sys.platform == "win32":
        base = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        given = environ.get("XDG_STATE_HOME") or ""
        base = Path(given) if given.startswith("/") else home / ".local" / "state"
    return base / "pytest-openscope" / name


def host_name() -> str:
    """Return this machine's name."""
    if hasattr(os, "uname"):
        return os.uname().nodename or "rig"
    return os.environ.get("COMPUTERNAME") or "rig"
