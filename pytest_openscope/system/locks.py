"""Operating system locks: a dead holder's lock is free, whatever killed it."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from .files import patiently

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: The locked byte lies far beyond any content, so that Windows' mandatory locks never hide data from readers.
LOCK_OFFSET = 2**40


def try_lock_byte(fd: int, offset: int = LOCK_OFFSET) -> bool:
    """Take an exclusive lock of one byte without waiting; False when another process holds it.

    Raises:
        OSError: the file system has no working locks.
    """
    try:
        if sys.platform == "win32":
            _lock_at(fd, msvcrt.LK_NBLCK, offset)
        else:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset, os.SEEK_SET)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        # Wine's C library refuses a lock that another holds without saying why.
        if sys.platform == "win32" and not error.errno:
            return False
        raise
    return True


def unlock_byte(fd: int, offset: int = LOCK_OFFSET) -> None:
    """Give the byte back."""
    if sys.platform == "win32":
        _lock_at(fd, msvcrt.LK_UNLCK, offset)
    else:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset, os.SEEK_SET)


if sys.platform == "win32":

    def _lock_at(fd: int, mode: int, offset: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            msvcrt.locking(fd, mode, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)


class FileLock:
    """An exclusive lock on a local file, held until :meth:`release` or the end of the process.

    Record locks of POSIX do not exclude a second holder in the same process and vanish when any descriptor of the file is
    closed there; ``flock`` has neither fault, but is inherited by forked children, which therefore close their copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """True from a successful :meth:`acquire` to :meth:`release`."""
        return self._fd is not None

    def acquire(self, timeout_s: float = 0.0, poll_s: float = 0.1) -> bool:
        """Take the lock, trying for ``timeout_s``; False when another holder keeps it.

        Raises:
            OSError: the file cannot be created or the file system has no locks.
        """
        deadline = time.monotonic() + timeout_s
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(poll_s, max(0.0, deadline - time.monotonic())))
        return True

    def _try(self) -> bool:
        if self._fd is not None:
            return True
        fd = patiently(partial(os.open, self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644))
        try:
            if sys.platform == "win32":
                self._fd = fd if try_lock_byte(fd) else None
            else:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._fd = fd
                os.register_at_fork(after_in_child=self._forget)
        except BlockingIOError:
            pass
        finally:
            if self._fd is None:
                os.close(fd)
        return self.held

    def _forget(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def release(self) -> None:
        """Free the lock; the file stays, since removing it would let two holders in."""
        fd, self._fd = self._fd, None
        if fd is not None:
            if sys.platform == "win32":
                unlock_byte(fd)
            os.close(fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
