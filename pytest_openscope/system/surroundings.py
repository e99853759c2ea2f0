"""What a session should know of the Windows around it: what it finds is told at its start, and changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath

import psutil

_ONE_DRIVES = ("OneDriveCommercial", "OneDriveConsumer", "OneDrive")


def remarks(output_root: Path, state_directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Return what may spoil a session on this computer, each with its remedy; empty on systems other than Windows."""
    if sys.platform != "win32":
        return []
    found = []
    for name, path in (("output_root_folder", output_root), ("state_directory", state_directory)):
        if drive := one_drive_of(path, environ):
            found.append(
                f"{name}: {path} is in OneDrive, which uploads files while they are written, holds them meanwhile, and may put"
                f" placeholders in their place -> give a folder outside of {drive}"
            )
    if from_the_store(sys.base_prefix) and _is_below(state_directory, environ.get("LOCALAPPDATA", "")):
        found.append(
            f"this Python is the Microsoft Store's, which keeps its own AppData: no other Python sees {state_directory}, nor"
            " that this rig is in use -> install Python from python.org, or set state_directory to a folder elsewhere"
        )
    import ctypes
    from ctypes import wintypes

    number = wintypes.DWORD()
    if ctypes.windll.kernel32.ProcessIdToSessionId(os.getpid(), ctypes.byref(number)) and number.value == 0:
        found.append(
            "this is Windows' session 0 (a service, or a task that runs though nobody is logged on): nobody sees an"
            " acquisition's windows, and shares have no drive letters -> let the task run only when the user is logged on"
        )
    if psutil.Process().nice() in (psutil.BELOW_NORMAL_PRIORITY_CLASS, psutil.IDLE_PRIORITY_CLASS):
        found.append(
            "this process has less than normal priority, and acquisitions inherit that (a scheduled task has it unless its"
            " settings say otherwise) -> set the task's priority to 4"
        )
    return found


def one_drive_of(path: PurePath, environ: Mapping[str, str]) -> str:
    """Return the OneDrive folder that a path lies in ("" for none)."""
    roots = [environ[name] for name in _ONE_DRIVES if environ.get(name)]
    return next((root for root in roots if _is_below(path, root)), "")


def from_the_store(base_prefix: str) -> bool:
    """Tell whether a Python was installed by the Microsoft Store."""
    return "windowsapps" in (part.lower() for part in PureWindowsPath(base_prefix).parts)


def missing_drive(path: PurePath) -> str:
    """Say why a path's drive letter may be missing ("" where there is such a drive, and on other systems)."""
    anchor = PureWindowsPath(path).anchor
    if sys.platform != "win32" or anchor[1:2] != ":" or Path(anchor).exists():
        return ""
    return (
        f"there is no drive {anchor[:2]} here (a share's drive letter is known to the log-on that made it only, not to a window"
        r" opened as administrator, nor to a scheduled task -> give \\server\share)"
    )


def _is_below(path: PurePath, root: str) -> bool:
    return bool(root) and PureWindowsPath(path).is_relative_to(PureWindowsPath(root))
