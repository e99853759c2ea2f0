"""Writing the session log: whole records or nothing, in one system call each, and an honest count of what was lost."""

from __future__ import annotations

import errno
import os
import weakref
from _thread import RLock
from collections.abc import Callable
from pathlib import Path

from ..system import count_lines, create_time, is_alive, is_deleted, keep_apart, put_back
from .lines import encode_record

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
_BLOCK = 64 * 1024
LOGGER = "pytest_openscope.logs"


class LogWriter:
    """Appends records to a file. Each is in the hands of the operating system when :meth:`write` returns.

    Never raises after it was opened: a full or broken disk is told once (``on_lost``), the records are counted, and once
    writing works again the log says how many are missing. A write that was cut short is taken back, so that the file ends in
    a whole record. The lock is re-entrant, since signal handlers and ``__del__`` log too.

    Args:
        path: the file; appended to if it exists (:func:`repair_tail` it first after a crash).
        on_lost: called once, with the first error, outside the lock.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], on_lost: Callable[[OSError], None] | None = None) -> None:
        self.path = Path(path)
        self.lost_records = 0
        self.first_error: OSError | None = None
        self._on_lost = on_lost
        self._fd = keep_apart(os.open(self.path, _FLAGS, 0o644))
        self._closed = False
        self._owner, self._owner_started = os.getpid(), create_time(os.getpid())
        self._size = os.fstat(self._fd).st_size
        self._lock = RLock()
        #: False while a note about lost records, or a newline after a torn line, has to precede the next record.
        self._clean = True
        self._torn = False
        self._owed_records = 0
        self._owed_bytes = 0
        self._owed_error: OSError | None = None
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _renew_lock(this))

    @property
    def size(self) -> int:
        """Size of the file in bytes, what a forked child appended included."""
        try:
            return self._size if self._closed else os.fstat(self._fd).st_size
        except OSError:
            return self._size

    def write(self, data: bytes, records: int = 1) -> bool:
        """Append whole records; False when they are lost."""
        written = 0
        error: OSError | None = None
        with self._lock:
            if self._clean:
                try:
                    written = os.write(self._fd, data)
                except OSError as caught:
                    error = caught
                if written == len(data):
                    self._size += written
                    return True
            done = self._write_slowly(data, records, written, error)
        if not done:
            self._tell_once()
        return done

    def record(self, level: str, logger: str, message: str, phase: str = "", step: str = "", at: float | None = None) -> bool:
        """Append one record; False when it is lost."""
        return self.write(encode_record(level, logger, message, phase, step, at))

    def retry(self) -> bool:
        """Try to say how many records were lost; True when nothing is owed (any more)."""
        with self._lock:
            return self._clean or self._write_slowly(b"", 0, 0, None)

    def close(self) -> None:
        """Write what is owed, wait for the disk, close the file; a file that was deleted meanwhile is written once more.

        Later records are dropped uncounted.
        """
        with self._lock:
            if not self._closed:
                self.retry()
                self._note_error(os.fsync, self._fd)
                self._put_back()
                self._size = self.size
                self._closed, self._clean = True, False
                fd, self._fd = self._fd, -1
                self._note_error(os.close, fd)

    def _note_error(self, do: Callable[[int], None], fd: int) -> None:
        try:
            do(fd)
        except OSError as error:
            self.first_error = self.first_error or error

    def _write_in_fork(self, data: bytes, records: int = 1) -> bool:
        """Stand in for :meth:`write` in a forked child: once the file's owner is dead, somebody else has finished the file."""
        if not is_alive(self._owner, self._owner_started):
            return False
        return LogWriter.write(self, data, records)

    def _write_slowly(self, data: bytes, records: int, written: int, error: OSError | None) -> bool:
        """Go on after ``written`` bytes and perhaps an ``error``, or write what is owed first; count what does not fit."""
        if self._closed:
            return False
        payload = data if self._clean else self._debt() + data
        if error is not None and error.errno == errno.EBADF and self._reopen():
            error = None
        try:
            if error is not None:
                raise error
            while written < len(payload):
                count = os.write(self._fd, payload[written:])
                if not count:
                    raise OSError(errno.EIO, "the disk takes nothing")
                written += count
        except OSError as caught:
            self._take_back(payload)
            self._lose(records, len(data), caught)
            return False
        self._size += written
        self._clean, self._torn = True, False
        self._owed_records = self._owed_bytes = 0
        self._owed_error = None
        return True

    def _debt(self) -> bytes:
        newline = b"\n" if self._torn else b""
        if not self._owed_records:
            return newline
        text = f"{self._owed_records} log records ({self._owed_bytes} bytes) were lost here: {self._owed_error}"
        return newline + encode_record("ERROR", LOGGER, text)

    def _lose(self, records: int, size: int, error: OSError) -> None:
        self._clean = False
        self.lost_records += records
        self._owed_records += records
        self._owed_bytes += size
        self._owed_error = self._owed_error or error
        self.first_error = self.first_error or error

    def _take_back(self, payload: bytes) -> None:
        """Cut off the part of ``payload`` that reached the file; what another process appended stays."""
        try:
            extra = os.fstat(self._fd).st_size - self._size
            if extra <= 0:
                return
            os.lseek(self._fd, self._size, os.SEEK_SET)
            if extra <= len(payload) and os.read(self._fd, extra) == payload[:extra]:
                os.ftruncate(self._fd, self._size)
                return
            self._size += extra
            os.lseek(self._fd, -1, os.SEEK_END)
            self._torn = os.read(self._fd, 1) != b"\n"
        except OSError:
            self._torn = True

    def _put_back(self) -> None:
        try:
            if is_deleted(self._fd):
                put_back(self._fd, self.path)
        except OSError as error:
            self.first_error = self.first_error or error
            try:
                self.lost_records += count_lines(self._fd)
            except OSError:
                self.lost_records += 1

    def _reopen(self) -> bool:
        """Open the file again after somebody closed our descriptor (``os.closerange``)."""
        try:
            self._fd = keep_apart(os.open(self.path, _FLAGS, 0o644))
            self._size = os.fstat(self._fd).st_size
        except OSError:
            return False
        return True

    def _tell_once(self) -> None:
        on_lost, error = self._on_lost, self.first_error
        if on_lost is not None and error is not None:
            self._on_lost = None
            on_lost(error)


def _renew_lock(writer: weakref.ref[LogWriter]) -> None:
    """Give a forked child a free lock: the thread that held the old one does not exist there."""
    this = writer()
    if this is not None:
        this._lock = RLock()
        # So that the others need not ask who they are.
        this.write = this._write_in_fork  # type: ignore[method-assign]


def repair_tail(path: str | os.PathLike[str]) -> bytes:
    """Cut a file back to its last whole line (and off the NUL bytes of a power cut); return what was cut off.

    Only for a file that nobody else is writing. A missing file is left missing.

    Raises:
        OSError: the file cannot be read or cut.
    """
    if not Path(path).exists():
        return b""
    with open(path, "r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        keep = 0
        for start in range((size - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
            stream.seek(start)
            newline = stream.read(_BLOCK).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
        stream.seek(keep)
        tail = stream.read(size - keep)
        if tail:
            stream.truncate(keep)
    return tail
