"""The session's own copy in the central directory: byte for byte, continued from its own length.

Only one process at a time writes it (the holder of the session's local lock). Writes go to explicit offsets and progress is
counted after a flush only, so that repeats and writes that land late change nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..system import read_json, replace_file, write_json
from .files import (
    BINARY,
    BLOCK_BYTES,
    LOG_NAME,
    METADATA_FILES,
    TURN_BYTES,
    MirrorJob,
    drop_cache,
    make_below,
    numbered,
    read_at,
    same_file,
    true_end,
    write_at,
)

#: A target that differs from the session log here is somebody else's file.
HEAD_BYTES = 4096
#: A larger metadata file stays on the rig.
METADATA_MAX_BYTES = 16 * 1024 * 1024
#: Bytes before the copy's end that must still read the same in the session log; a short write taken back changes them.
_TAIL_BYTES = 256
#: How often an idle copy is looked up by its path: finds a vanished share, or a file that was replaced.
_LOOK_S = 2.0
_VERIFY_ROUNDS = 3
_NAMES = 100


class Hint:
    """What this session's mirror remembers on the local disk. It may be lost or stale at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = read_json(path) or {}

    def save(self, **values: Any) -> None:
        """Remember ``values``; a full disk only costs a scan later."""
        self.data.update(values)
        with contextlib.suppress(OSError):
            write_json(self.path, self.data)


class SourceLog:
    """The session log as it is read: by offset, whatever its writer does meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def _open(self) -> int | None:
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | BINARY)
            except FileNotFoundError:
                return None
        return self._fd

    def size(self) -> int:
        """Return the length in bytes; 0 before the log exists."""
        fd = self._open()
        return 0 if fd is None else os.fstat(fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        fd = self._open()
        return b"" if fd is None else read_at(fd, offset, size)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class OwnCopy:
    """Follows the session log with its copy.

    Every method that touches the share may raise OSError; afterwards :meth:`drop` must be called, and the copy finds its
    place again by comparing.

    Attributes:
        flushed: bytes that the share has confirmed.
        number: 1, or more when a foreign file holds the name; None before the copy was opened.
        created: nothing of this session was in the central directory before.
        verified_size: length of the session log for which the copy was found equal, with its SHA-256 in ``digest``; -1 before.
    """

    def __init__(self, job: MirrorJob, source: SourceLog, hint: Hint, beat: Callable[[], None], warn: Callable[[str], None]):
        self.root = Path(job.mirror_directory)
        self.folder = job.own_folder
        self.source = source
        self.hint = hint
        self.beat = beat
        self.warn = warn
        self.flushed = 0
        self.number: int | None = None
        self.created = False
        self.verified_size = -1
        self.digest = ""
        self._fd: int | None = None
        self._confirmed: int | None = None
        self._tail = b""
        self._next_look = 0.0
        self._warned = 0

    @property
    def path(self) -> Path:
        """Where the copy is (the usual name as long as it was not opened)."""
        return self.folder / numbered(LOG_NAME, self.number or 1)

    def turn(self, finishing: bool) -> bool:
        """Copy what is new, at the session's end verify it; True when there is more."""
        more = self.follow(finishing)
        if finishing and not more and self.verified_size != self.source.size():
            self.digest = self.verify()
            self.verified_size = self.flushed
        return more

    def follow(self, finishing: bool = False) -> bool:
        """Copy what is new, at most one turn's worth; True when there is more."""
        if self._fd is None and not self._open(finishing):
            return False
        assert self._fd is not None
        if time.monotonic() >= self._next_look:
            self._look()
        size = self.source.size()
        if size < self.flushed or self.source.read(self.flushed - len(self._tail), len(self._tail)) != self._tail:
            self._find_place(self._fd)
        position, stop = self.flushed, min(size, self.flushed + TURN_BYTES)
        while position < stop:
            data = self.source.read(position, min(BLOCK_BYTES, stop - position))
            if not data:
                break
            write_at(self._fd, position, data)
            self.beat()
            position += len(data)
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if position > self.flushed:
            self._flush(self._fd, position)
        return position < self.source.size()

    def verify(self) -> str:
        """Compare length and SHA-256 of both files after flushing and reopening; mend blocks that differ.

        Returns:
            The digest in hexadecimal.

        Raises:
            OSError: also when the copy cannot be made equal.
        """
        for _ in range(_VERIFY_ROUNDS):
            while self.follow(finishing=True):
                self.beat()
            if self._fd is None:
                raise OSError(errno.EBUSY, "the copy's name is not settled")
            self._flush(self._fd, self.flushed)
            self.drop(keep_progress=True)
            self._fd = fd = os.open(self.path, os.O_RDWR | BINARY)
            drop_cache(fd)
            digest = self._compare(fd)
            if digest:
                return digest
        raise OSError(errno.EIO, "the copy differs from the session log again and again", str(self.path))

    def copy_metadata(self) -> None:
        """Copy the session's small files beside the log, each whole or not at all.

        Raises:
            OSError: those that could not be copied, after the others were.
        """
        failure: OSError | None = None
        for name in METADATA_FILES:
            try:
                self._copy_file(name)
            except OSError as error:
                failure = error
            self.beat()
        if failure is not None:
            raise failure

    def drop(self, keep_progress: bool = False) -> None:
        """Close the copy; unless told otherwise its place must be found again."""
        fd, self._fd = self._fd, None
        if not keep_progress:
            self._tail = b""
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self, finishing: bool) -> bool:
        make_below(self.root, self.folder, self.beat)
        for number in range(1, _NAMES):
            fd = self._claim(number, finishing)
            self.beat()
            if fd is None:
                continue
            if fd < 0:
                return False
            self._fd, self.number = fd, number
            if number > 1 and self._warned != number:
                self._warned = number
                self.warn(f"{self.folder / LOG_NAME} holds other content; this session's copy is {self.path.name} beside it")
            if self.hint.data.get("copy") != number:
                self.hint.save(copy=number)
            self._next_look = time.monotonic() + _LOOK_S
            self._find_place(fd)
            return True
        raise FileExistsError(errno.EEXIST, "no free name", str(self.folder))

    def _claim(self, number: int, finishing: bool) -> int | None:
        """Open the copy under its ``number``-th name: its descriptor, None for a foreign file, -1 for "cannot tell yet"."""
        path = self.folder / numbered(LOG_NAME, number)
        try:
            fd = os.open(path, os.O_RDWR | BINARY)
        except FileNotFoundError:
            taken = {entry.name for entry in self.folder.iterdir()}
            if self.hint.data.get("copy") != number and taken & {numbered(name, number) for name in METADATA_FILES}:
                return None
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
            self.created = self.hint.data.get("copy") is None
            return fd
        own = None
        try:
            own = self._is_own(fd, number, finishing)
        finally:
            if not own:
                os.close(fd)
        if own:
            return fd
        return None if own is False else -1

    def _is_own(self, fd: int, number: int, finishing: bool) -> bool | None:
        here, there = self.source.read(0, HEAD_BYTES), read_at(fd, 0, HEAD_BYTES)
        common = min(len(here), len(there))
        if here[:common] != there[:common]:
            return False
        if len(there) <= len(here) or self.hint.data.get("copy") == number:
            return True
        return False if finishing else None

    def _find_place(self, fd: int) -> None:
        """Set the place to write from: after the last block that is equal in both files."""
        drop_cache(fd)
        size, end = self.source.size(), true_end(fd)
        place = min(size, end)
        if self._confirmed is not None:
            place = min(place, self._confirmed)
        while place:
            start = (place - 1) // BLOCK_BYTES * BLOCK_BYTES
            here, there = self.source.read(start, place - start), read_at(fd, start, place - start)
            self.beat()
            if here == there:
                break
            place = start
        if end > size:
            os.ftruncate(fd, size)
        self.flushed = place
        self._tail = self.source.read(max(0, place - _TAIL_BYTES), min(place, _TAIL_BYTES))

    def _flush(self, fd: int, position: int) -> None:
        os.fsync(fd)
        self.flushed = self._confirmed = position
        self.beat()

    def _look(self) -> None:
        assert self._fd is not None
        if not same_file(self.path, self._fd):
            raise FileNotFoundError(errno.ENOENT, "the copy is gone", str(self.path))
        self.beat()
        self._next_look = time.monotonic() + _LOOK_S

    def _compare(self, fd: int) -> str:
        size, end = self.source.size(), true_end(fd)
        digest, place, mended = hashlib.sha256(), 0, end != size
        if end > size:
            os.ftruncate(fd, size)
        while place < size:
            local, remote = self.source.read(place, min(BLOCK_BYTES, size - place)), read_at(fd, place, BLOCK_BYTES)
            if not local:
                return ""
            digest.update(local)
            if local != remote[: len(local)]:
                write_at(fd, place, local)
                mended = True
            self.beat()
            place += len(local)
        if not mended:
            return digest.hexdigest()
        os.fsync(fd)
        return ""

    def _copy_file(self, name: str) -> None:
        local = Path(self.source.path.parent, name)
        target = self.folder / numbered(name, self.number or 1)
        try:
            if local.stat().st_size > METADATA_MAX_BYTES:
                self.warn(f"{name} is too large for the central mirror and stays on the rig")
                return
            data = local.read_bytes()
        except FileNotFoundError:
            return
        with contextlib.suppress(FileNotFoundError):
            if target.read_bytes() == data:
                return
        temporary = target.with_name(f".{target.name}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o644)
        try:
            write_at(fd, 0, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        replace_file(temporary, target)
