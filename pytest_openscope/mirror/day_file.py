"""The day's log, a file that many PCs write: its lines prove themselves, and one locked byte lets one PC write at a time.

A line is ``<rig> <session> <offset> <crc32> <original line>``: ``offset`` is the line's byte position in its session log,
``crc32`` (eight hexadecimal digits) covers the other fields and the line. Lines that begin with ``#`` are blanked damage.

The lock lies on the writing handle itself, at 2**40, where no content is. On POSIX a record lock vanishes when *any*
descriptor of the file is closed, so the process opens the file once.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from ..system import try_lock_byte, unlock_byte
from .files import BINARY, BLOCK_BYTES, make_below, numbered, read_at, true_end, write_at

_HEADER = re.compile(rb"[^ #\n][^ \n]* [^ \n]+ \d+ [0-9a-f]{8} ")
_DATED = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:")
BLANKED = b"# damaged line, blanked "
_POLL_FIRST_S, _POLL_GROWTH, _POLL_MOST_S, _POLL_HURRY_S = 0.02, 1.6, 1.0, 0.2
#: A hold that has lasted this long writes no further batch; a supervisor ends a process whose hold lasts 10 s.
HOLD_MOST_S = 2.0
_NAMES = 100


class DayLine(NamedTuple):
    """One valid line: its session's key (``<rig> <session>``), its offset there, and its text without newline."""

    key: bytes
    offset: int
    text: bytes


def format_line(key: bytes, offset: int, text: bytes) -> bytes:
    """Return the line of the day's log, newline included, for ``text`` (without newline) at ``offset`` of its log."""
    head = b"%b %d " % (key, offset)
    return b"%b%08x %b\n" % (head, crc32(text, crc32(head)), text)


def parse_line(line: bytes) -> DayLine | None:
    """Return the parts of a line (without newline), or None when it does not prove itself."""
    fields = line.split(b" ", 4)
    if len(fields) != 5 or len(fields[3]) != 8 or not fields[2].isdigit() or len(fields[2]) > 19:
        return None
    head = b"%b %b %b " % (fields[0], fields[1], fields[2])
    if b"%08x" % crc32(fields[4], crc32(head)) != fields[3]:
        return None
    return DayLine(b"%b %b" % (fields[0], fields[1]), int(fields[2]), fields[4])


def looks_damaged(line: bytes, keys: Iterable[bytes]) -> bool:
    """Tell whether an invalid line was once written by this package; a line of some other program is left alone.

    The launcher that this package succeeds appends plain lines to a file of the same name. What cannot be theirs: zeroed
    bytes, the header of a line of ours at the start, or a known session's key (cut short, too) in it.
    """
    if b"\0\0\0\0" in line or _HEADER.match(line):
        return True
    return any(key + b" " in line or (len(line) > 2 and key.startswith(line)) for key in keys)


def blank(length: int) -> bytes:
    """Return the filling, of equal length, for a damaged line of ``length`` bytes (newline not counted)."""
    return (BLANKED + b"." * length)[:length]


def is_day_log(head: bytes) -> bool:
    """Tell from its first bytes whether a file is a day's log (also an empty or zeroed one) or somebody else's."""
    first = head.partition(b"\n")[0]
    blanked = first[:1] == b"#" and first == blank(len(first))
    zeroed = head[:4] == bytes(min(4, len(head)))
    return zeroed or blanked or _HEADER.match(head) is not None


def is_foreign_tail(tail: bytes) -> bool:
    """Tell whether an unfinished last line belongs to a program that writes plain lines beginning with a date."""
    return _DATED.match(tail) is not None


class DayFile:
    """Opens, locks and changes one day's log. Everything but :meth:`close` may raise OSError.

    Attributes:
        path: the file in use: ``launcher.log``, or another name beside it when a foreign file holds that one.
        locked: True while this process holds the lock.
        hurry: the session has ended, somebody waits: poll the lock at least every 0.2 s.
        blocked_s: for how long another writer has kept the lock.
    """

    def __init__(self, path: Path, beat: Callable[[], None], root: Path | None = None) -> None:
        self.wanted = path
        self.path = path
        self.locked = False
        self.hurry = False
        self.fd = -1
        self.beat = beat
        self.root = root
        self._blocked_since: float | None = None
        self._poll_s = 0.0
        self._next_poll = 0.0

    @property
    def blocked_s(self) -> float:
        """Seconds since the lock was first refused; 0 while it is not."""
        return 0.0 if self._blocked_since is None else time.monotonic() - self._blocked_since

    def open(self, create: bool = True) -> None:
        """Open the day's log; a foreign file of that name is left alone and a free name beside it used."""
        flags = os.O_RDWR | BINARY | (os.O_CREAT if create else 0)
        if create:
            make_below(self.root or self.wanted.parent.parent, self.wanted.parent, self.beat)
        for number in range(1, _NAMES):
            path = self.wanted.with_name(numbered(self.wanted.name, number))
            fd = os.open(path, flags, 0o644)
            own = False
            try:
                own = is_day_log(read_at(fd, 0, 4096))
            finally:
                if not own:
                    os.close(fd)
            if own:
                self.fd, self.path = fd, path
                self.beat()
                return
        raise FileExistsError(f"no free name for the day's log in {self.wanted.parent}")

    def close(self) -> None:
        """Close the handle, which frees the lock; never raises."""
        fd, self.fd, self.locked = self.fd, -1, False
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def try_lock(self) -> bool:
        """Take the lock if it is free and its next poll is due: 20 ms, growing to 1 s, with jitter."""
        now = time.monotonic()
        if now < self._next_poll:
            return False
        if try_lock_byte(self.fd):
            self.locked, self._blocked_since, self._poll_s, self._next_poll = True, None, 0.0, 0.0
            self.beat()
            return True
        if self._blocked_since is None:
            self._blocked_since = now
        self._poll_s = min(max(_POLL_FIRST_S, self._poll_s * _POLL_GROWTH), _POLL_HURRY_S if self.hurry else _POLL_MOST_S)
        self._next_poll = now + self._poll_s * random.uniform(0.5, 1.0)
        self.beat()
        return False

    def unlock(self) -> None:
        """Give the lock back."""
        if self.locked:
            self.locked = False
            unlock_byte(self.fd)
            self.beat()

    def end(self) -> int:
        """Return the file's length."""
        return true_end(self.fd)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        data = read_at(self.fd, offset, size)
        self.beat()
        return data

    def whole_end(self, end: int) -> int:
        """Return the place after the last newline before ``end``."""
        place = end
        while place:
            start = max(0, place - BLOCK_BYTES)
            found = self.read(start, place - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            place = start
        return 0

    def cut_torn_tail(self) -> int:
        """Under the lock: remove an unfinished last line (a foreign one is finished instead); return the file's length.

        One read answers all as a rule, since every call on the share lengthens the hold.
        """
        end = os.lseek(self.fd, 0, os.SEEK_END)
        start = max(0, end - 1)
        data = self.read(start, BLOCK_BYTES)
        if len(data) != end - start:
            # A length that the client remembers from earlier.
            end = self.end()
            data = self.read(max(0, end - 1), 1)
        if not data or data == b"\n":
            return end
        whole = self.whole_end(end)
        if is_foreign_tail(self.read(whole, 32)):
            write_at(self.fd, end, b"\n")
            return end + 1
        os.ftruncate(self.fd, whole)
        self.beat()
        return whole

    def append(self, end: int, lines: Sequence[bytes]) -> tuple[int, int]:
        """Under the lock: write whole lines from ``end`` on, at most 64 KiB a write, flushed after each.

        Returns:
            How many lines are on the share (fewer than given when time ran out), and the new end.

        Raises:
            OSError: lines written so far stay; what was written of the next ones is cut off if that is possible.
        """
        stop = time.monotonic() + HOLD_MOST_S
        count = 0
        while count < len(lines) and (not count or time.monotonic() < stop):
            batch, size = [lines[count]], len(lines[count])
            for line in lines[count + 1 :]:
                if size + len(line) > BLOCK_BYTES:
                    break
                batch.append(line)
                size += len(line)
            self._write(end, b"".join(batch))
            count += len(batch)
            end += size
        return count, end

    def _write(self, end: int, data: bytes) -> None:
        try:
            for start in range(0, len(data), BLOCK_BYTES):
                write_at(self.fd, end + start, data[start : start + BLOCK_BYTES])
                self.beat()
            os.fsync(self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, end)
            raise
        self.beat()

    def blank(self, spots: Sequence[tuple[int, bytes]]) -> int:
        """Under the lock: blank lines that still hold the given bytes, in place and at equal length; return how many."""
        count = 0
        for offset, line in spots:
            if line and self.read(offset, len(line)) == line:
                write_at(self.fd, offset, blank(len(line)))
                count += 1
                self.beat()
        if count:
            os.fsync(self.fd)
        return count
