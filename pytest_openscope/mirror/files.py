"""What the parts of the mirror share: the job, names in the central directory, exact reads and writes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from ..records import safe_name

#: Size of a block that is compared, and the most that one write call gets (the unit of the measurements in the docs).
BLOCK_BYTES = 64 * 1024
#: Most that is written to one file before another file gets its turn, and the most in one hold of the day's lock.
TURN_BYTES = 1024 * 1024

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
LOG_NAME = "launcher.log"
#: The small files of ``launcher_metadata`` that are copied beside the log when the session ends.
METADATA_FILES = (
    "input_parameters.json",
    "processed_parameters.json",
    "command_line_arguments.json",
    "git_revisions.json",
    "resource_usage.json",
    "routing_manifest.json",
    "debug_state.json",
    "end_state.json",
)


@dataclass(frozen=True)
class MirrorJob:
    """One session's mirror.

    Attributes:
        log_path: the session log.
        mirror_directory: ``centralized_log_directory``.
        started: the session's start, ISO 8601; its date names the folders ``YYYY/MM/DD``.
        state_directory: the rig's local state directory (locks and hints).
    """

    log_path: str
    mirror_directory: str
    rig_id: str
    session_uuid: str
    started: str
    state_directory: str

    def to_json(self) -> str:
        """Return the job as one line of ASCII."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> MirrorJob:
        """Rebuild a job."""
        return cls(**json.loads(text))

    @property
    def day_folder(self) -> Path:
        """``<mirror_directory>/YYYY/MM/DD`` of the session's start."""
        year, month, day = self.started[:10].split("-")
        return Path(self.mirror_directory, year, month, day)

    @property
    def own_folder(self) -> Path:
        """The folder of the session's own copy."""
        return self.day_folder / folder_name(self.rig_id) / folder_name(self.session_uuid)

    @property
    def day_log(self) -> Path:
        """The day's log, which all rigs and sessions of the day share."""
        return self.day_folder / LOG_NAME

    @property
    def key(self) -> bytes:
        """``<rig> <session>`` as they begin every line of the day's log."""
        return day_key(folder_name(self.rig_id), folder_name(self.session_uuid))

    @property
    def lock_path(self) -> Path:
        """The local lock of this session's mirror: whoever holds it mirrors."""
        return Path(self.state_directory, "mirror", f"{folder_name(self.session_uuid)}.lock")

    @property
    def hint_path(self) -> Path:
        """The local hint; losing it costs a scan of the day's log, nothing else."""
        return Path(self.state_directory, "mirror", f"{folder_name(self.session_uuid)}.json")


def folder_name(text: str) -> str:
    """Return ``text`` as a folder name that every file system takes."""
    return safe_name(text, "unnamed")


def day_key(rig: str, session: str) -> bytes:
    """Return the two first fields of a line in the day's log, blanks and other odd characters as ``%XX``."""
    return _escape(rig) + b" " + _escape(session)


def _escape(text: str) -> bytes:
    plain = [char.isprintable() and not char.isspace() and char not in "%#" for char in text]
    escaped = [char if good else quote(char, errors="surrogatepass") for char, good in zip(text, plain, strict=True)]
    return "".join(escaped).encode("utf-8")


def numbered(name: str, number: int) -> str:
    """Return ``launcher.log``, ``launcher-2.log``, ``launcher-3.log`` … for 1, 2, 3 …"""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}{dot}{suffix}"


def make_below(root: Path, folder: Path, beat: Callable[[], None]) -> None:
    """Create ``folder`` and what is missing between it and ``root``, which must exist: a vanished share is not made anew.

    Raises:
        OSError: the root is missing, or a folder cannot be created.
    """
    if folder == root:
        raise FileNotFoundError(errno.ENOENT, "the central log directory is gone", str(root))
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        make_below(root, folder.parent, beat)
        folder.mkdir(exist_ok=True)
    beat()


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return up to ``size`` bytes from ``offset``; fewer only at the end of the file."""
    os.lseek(fd, offset, os.SEEK_SET)
    parts = []
    while size and (data := os.read(fd, size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def write_at(fd: int, offset: int, data: bytes) -> None:
    """Write all of ``data`` at ``offset``, going on after short writes.

    Raises:
        OSError: also when a write takes nothing at all.
    """
    os.lseek(fd, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        count = os.write(fd, view[:BLOCK_BYTES])
        if count <= 0:
            raise OSError(errno.EIO, "the write took nothing")
        view = view[count:]


def true_end(fd: int) -> int:
    """Return the file's length; a length that the client remembers from earlier is found out by reading on.

    Raises:
        OSError: the length is longer than what can be read.
    """
    end = os.lseek(fd, 0, os.SEEK_END)
    while data := read_at(fd, end, BLOCK_BYTES):
        end = max(end + len(data), os.lseek(fd, 0, os.SEEK_END))
    if end and not read_at(fd, end - 1, 1):
        raise OSError(errno.EIO, "the file is shorter than its length")
    return end


def drop_cache(fd: int) -> None:
    """Ask the system to forget what it has cached of a flushed file, so that reads reach the server."""
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def same_file(path: Path, fd: int) -> bool:
    """Tell whether ``path`` still names the open file; where the system gives no file ids, it is believed."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return not named.st_ino or not opened.st_ino or os.path.samestat(named, opened)
