"""Where copies go: what every target can do, and folders.

A copy is written under a name of its own (``.openscope-….partial``) beside its place, brought to the disk, read back, and only
then given its name, in a step that never replaces what is there. A copy that was interrupted is gone on with: what is there is
compared with the original block by block, and writing begins where they differ.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ...system import patiently, remove_file
from .small_files import BINARY, give_name, new_hash, partial_name, sync_file_system
from .sources import Source, os_path

BLOCK_BYTES = 4 * 1024 * 1024
_SEND_BYTES = 32 * 1024 * 1024


class Conflict(Exception):  # noqa: N818 - named for what happened
    """At a file's place in the target lies another file; it stays as it is."""


class Copying(Protocol):
    """One copy under way."""

    def put(self, block: memoryview) -> None:
        """Write the next block."""

    def finish(self, source: Source) -> None:
        """Complete the copy under its own name; it need not be on the disk yet."""

    def abandon(self) -> None:
        """Let go; what was written stays for a later run, where the target can go on with it."""


class Target(Protocol):
    """A place for copies; methods raise ``OSError`` for what does not work, and may be called from several threads."""

    name: str
    place: str

    def where(self, name: str) -> str:
        """Return the path or URL of a file's copy."""

    def size_of(self, name: str) -> int | None:
        """Return the size of what lies at a file's place; None when nothing does."""

    def is_fresh(self, name: str) -> bool:
        """Tell whether this run made the folder of a file's place, so that nobody need look what is there."""

    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read what lies at a file's place and return its checksum."""

    def begin(self, name: str, source: Source, replace: bool) -> Copying:
        """Begin a copy, or go on with one; ``replace`` for one that is to take the place of an older copy of ours."""

    def settle(self, names: Iterable[str]) -> None:
        """Bring finished copies to the disk."""

    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read a finished copy, not what is left of it in memory, and return its checksum."""

    def publish(self, name: str, replace: bool) -> None:
        """Give a copy its name.

        Raises:
            FileExistsError: something is there, and is not to be replaced.
        """

    def discard(self, name: str) -> None:
        """Remove a copy that turned out wrong."""

    def probe(self) -> str:
        """Say why the target cannot be written to at all ("" when it can)."""


class FolderTarget:
    """A folder of this computer, or of a share that is mounted."""

    def __init__(self, name: str, place: str, salt: str) -> None:
        self.name, self.place = name, place
        self._root, self._salt = os_path(place), salt
        self._made: dict[str, bool] = {}
        self._lock = threading.Lock()

    def for_helper(self) -> tuple[str, str]:
        """Return what a helper process needs to make copies here."""
        return self._root, self._salt

    def where(self, name: str) -> str:
        """Return the path of a file's copy."""
        return os.path.join(self.place, *name.split("/"))

    def _final(self, name: str) -> str:
        return self._root + os.sep + (name if os.sep == "/" else name.replace("/", os.sep))

    def _partial(self, name: str) -> str:
        """The same in every run."""
        return self._final(partial_name(name, self._salt))

    def size_of(self, name: str) -> int | None:
        """Return the size of what lies at a file's place."""
        try:
            return os.lstat(self._final(name)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_fresh(self, name: str) -> bool:
        """Tell whether this run made the folder of a file's place; :meth:`publish` finds out what came there since."""
        return self._made.get(name.rpartition("/")[0], False)

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        with self._lock:
            if folder in self._made:
                return
            path = self._final(folder) if folder else self._root
            try:
                os.makedirs(path)  # noqa: PTH103
                self._made[folder] = True
            except FileExistsError:
                os.makedirs(path, exist_ok=True)  # noqa: PTH103 - a file of that name is an error
                self._made[folder] = False

    def begin(self, name: str, source: Source, replace: bool) -> Copying:
        """Begin a copy, or go on with one."""
        self._make_folder(name.rpartition("/")[0])
        return _FileCopying(self._partial(name))

    def settle(self, names: Iterable[str]) -> None:
        """Bring finished copies to the disk: all of the file system at once on Linux, one by one elsewhere."""
        names = list(names)
        if len(names) > 1 and sync_file_system(self._root):
            return
        for name in names:
            fd = os.open(self._partial(name), os.O_RDWR | BINARY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def checksum_of(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read what lies at a file's place and return its checksum."""
        return _checksum(self._final(name), algo, stop)

    def checksum_of_copy(self, name: str, algo: str, stop: Callable[[], bool]) -> str:
        """Read a finished copy and return its checksum."""
        return _checksum(self._partial(name), algo, stop)

    def publish(self, name: str, replace: bool) -> None:
        """Give a copy its name."""
        partial, final = self._partial(name), self._final(name)
        if replace:
            patiently(lambda: os.replace(partial, final))
        else:
            patiently(lambda: give_name(partial, final))

    def discard(self, name: str) -> None:
        """Remove a copy that turned out wrong."""
        remove_file(Path(self._partial(name)))

    def probe(self) -> str:
        """Say why the folder cannot be written to."""
        path = f"{self._root}{os.sep}.openscope-{os.getpid():016x}.partial"
        try:
            os.makedirs(self._root, exist_ok=True)  # noqa: PTH103
            with open(path, "wb") as stream:
                stream.write(b"\0" * 4096)
                stream.flush()
                os.fsync(stream.fileno())
            remove_file(Path(path))
        except OSError as error:
            return words_of(error)
        return ""


class _FileCopying:
    """One copy into a file. ``put`` compares with what an earlier run left before it writes."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        self._path = path
        self._position = self._sent = 0
        self._kept = os.fstat(self._fd).st_size

    def put(self, block: memoryview) -> None:
        """Write the next block, where it is not there already."""
        if self._kept > self._position:
            block = self._skip(block)
        while block:
            written = os.write(self._fd, block)
            self._position += written
            block = block[written:]
        if sys.platform == "linux" and self._position - self._sent >= _SEND_BYTES:
            # Lets the disk or the server begin with it; the whole is waited for at the end.
            os.posix_fadvise(self._fd, self._sent, self._position - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self._position

    def _skip(self, block: memoryview) -> memoryview:
        """Return what of a block is still to be written; the file is cut where it stops being right."""
        os.lseek(self._fd, self._position, os.SEEK_SET)
        there = os.read(self._fd, min(len(block), self._kept - self._position))
        if there and there == block[: len(there)]:
            self._position += len(there)
            return block[len(there) :]
        os.ftruncate(self._fd, self._position)
        self._kept = self._position
        os.lseek(self._fd, self._position, os.SEEK_SET)
        return block

    def finish(self, source: Source) -> None:
        """Cut what is too much, and give the copy the original's time."""
        try:
            if self._kept > self._position:
                os.ftruncate(self._fd, self._position)
            if os.utime in os.supports_fd:
                os.utime(self._fd, ns=(source.mtime_ns, source.mtime_ns))
        finally:
            os.close(self._fd)
        if os.utime not in os.supports_fd:
            os.utime(self._path, ns=(source.mtime_ns, source.mtime_ns))

    def abandon(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def _checksum(path: str, algo: str, stop: Callable[[], bool]) -> str:
    """Read a file and return its checksum; from the disk or the server, as far as the system lets go of what it remembers."""
    fd = os.open(path, os.O_RDONLY | BINARY)
    try:
        if sys.platform == "linux":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        left = os.fstat(fd).st_size
        digest = new_hash(algo)
        while data := os.read(fd, min(left, BLOCK_BYTES) or 1):
            digest.update(data)
            left = max(left - len(data), 0)
            if stop():
                raise InterruptedError("stopped")
        return digest.hexdigest()
    finally:
        os.close(fd)


def words_of(error: BaseException) -> str:
    """Say what an error means for a file."""
    if isinstance(error, OSError):
        if getattr(error, "winerror", None) in (32, 33):
            return "is locked by another program"
        if error.errno == errno.ENAMETOOLONG or getattr(error, "winerror", None) == 206:
            return "has a name or path that is too long there"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "does not fit: no space is left there"
        return error.strerror or str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"
