"""Paths of parameters: on this computer, in the experiment's repository, on a drive of the rig, or not known yet."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..system import native_path


def repository_folder(parameters: Mapping[str, Any]) -> Path | None:
    """Return ``local_repository_path``/<name of the repository>; None when no repository is named."""
    local = parameters.get("local_repository_path")
    if not local:
        return None
    url = str(parameters.get("repository_url") or "").replace("\\", "/").rstrip("/").removesuffix(".git")
    name = url.replace(":", "/").rpartition("/")[2]
    return native_path(str(local)) / name if name else native_path(str(local))


def in_repository(parameters: Mapping[str, Any], text: str) -> Path:
    """Return the path; a relative one lies in the repository, or in the working directory where there is none."""
    path = native_path(text)
    if is_absolute(text):
        return path
    folder = repository_folder(parameters)
    return folder / path if folder is not None else path


def is_absolute(text: str) -> bool:
    """Tell whether a path is absolute on this system or on another one."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or bool(PureWindowsPath(text).drive)


def is_template(text: str) -> bool:
    """Tell whether a text may still hold placeholders or variables."""
    return any(sign in text for sign in "{$%")


def is_elsewhere(parameters: Mapping[str, Any], path: str) -> bool:
    """Tell whether a file that is not here may be on the rig: in a repository that it fetches, or on a drive of Windows."""
    return bool(parameters.get("repository_url") or (sys.platform != "win32" and PureWindowsPath(path).drive))
