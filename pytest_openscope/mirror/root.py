"""Is the central directory really there? An unmounted share leaves an empty local folder that takes every write."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

from ..system import write_json

#: Folders in which systems mount shares: what is missing in them is not mounted, and is never created.
_ANCHORS = ("/mnt", "/media", "/net", "/Volumes")


class MirrorRoot:
    """Guards the entrance to ``centralized_log_directory``; its notes are kept in the rig's state directory.

    The directory is created only if no session of this rig has seen it before, its parent exists, and the parent is not a
    place where shares are mounted. A directory that was seen on a mounted file system must be on one again.
    """

    def __init__(self, root: Path, notes: Path, beat: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.notes = notes
        self.beat = beat

    def check(self) -> None:
        """Return if the directory can be used.

        Raises:
            OSError: the share is missing.
        """
        known = self._read()
        seen = known.get(str(self.root))
        if not self.root.is_dir():
            if seen is not None:
                raise FileNotFoundError(errno.ENOENT, "the central log directory is gone", str(self.root))
            self._create()
        self.beat()
        mount = mount_point(self.root, self.beat)
        if seen and seen != mount and len(mount) < len(seen):
            raise FileNotFoundError(errno.ENOENT, f"nothing is mounted on {seen}", str(self.root))
        if seen != mount:
            self._write({**known, str(self.root): mount})

    def _create(self) -> None:
        parent = self.root.parent
        if not parent.is_dir() or parent.as_posix() in _ANCHORS or parent.parent.as_posix() in ("/run/media", "/media"):
            raise FileNotFoundError(errno.ENOENT, "the central log directory does not exist", str(self.root))
        self.root.mkdir(exist_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, str]) -> None:
        try:
            self.notes.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.notes, known)
        except OSError:
            return


def mount_point(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """Return the folder on which the file system of ``path`` is mounted (Windows: the drive or the share).

    Raises:
        OSError: the share does not answer.
    """
    path = path.resolve()
    beat()
    device = path.stat().st_dev
    while path != path.parent and path.parent.stat().st_dev == device:
        path = path.parent
        beat()
    return str(path)
