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
    probe = path
    while True:
        try:
            facts = probe.stat()
        except FileNotFoundError:
            if probe.parent == probe:
                return missing_drive(probe) or f"{probe} {_MISSING}"
            probe = probe.parent
            continue
        except NotADirectoryError:
            probe = probe.parent
            continue
        except (OSError, ValueError, RuntimeError) as error:
            return f"{probe} cannot be reached: {getattr(error, 'strerror', None) or error}"
        break
    if not stat.S_ISDIR(facts.st_mode):
        return f"{probe} is a file, not a folder"
    if not os.access(probe, os.W_OK | os.X_OK):
        return f"{probe} {_READ_ONLY}"
    return ""


def output_root(text: str | None, cwd: Path, dry_run: bool, *, look: bool = True) -> tuple[Path, str]:
    """Return the folder that will hold the session folder, and a notice ("" mostly).

    A folder whose parent is missing too is made with the session and told: mostly it is a slip of the pen.

    A dry run has its own root, ``dry_runs`` under the output root; under ``cwd`` where the output root is no good. Without
    ``look`` nothing is touched: the validation of a rig looks itself, from a process that may hang.

    Raises:
        Wrong: no root, or one in which nothing can be created.
    """
    problem, remedy = "", "give another one with --output-root"
    if text is None or not text.strip():
        problem, remedy = "no output root is given", "set output_root_folder in the rig file, or give --output-root"
    elif has_placeholder(text) and re.search(r"\{(output_)?session_(folder|uuid)\}", text):
        problem, remedy = "the output root cannot depend on the session's name or folder", "remove the placeholder"
        raise Wrong(problem, remedy)
    elif odd := control_characters(text):
        raise Wrong(odd, CONTROL_REMEDY)
    else:
        foreign = foreign_path(text)
        if foreign:
            problem, remedy = f"{text!r} {foreign}", "give a path of this system with --output-root"
        else:
            root = local_path(text, cwd)
            root = root / DRY_RUNS if dry_run else root
            unusable = usable_folder(root) if look or dry_run else ""
            if not unusable:
                made = local_path(text, cwd)
                return root, f"created {made} (new)" if look and not made.parent.exists() else ""
            problem = f"{text!r} cannot be used: {unusable}"
            if unusable.endswith(_MISSING):
                remedy = f"create it, or {remedy}"
            elif unusable.endswith(_READ_ONLY):
                remedy = f"ask for the right to write there, or {remedy}"
    if not dry_run:
        raise Wrong(problem, remedy)
    root = cwd / DRY_RUNS
    unusable = usable_folder(root)
    if unusable:
        raise Wrong(f"{problem}; nor can {root}: {unusable}", "give another one with --output-root")
    return root, f"{problem}; the dry run goes to {root}" if text else ""


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
