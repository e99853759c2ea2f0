"""Auditing the day's log: which lines of a session are missing, doubled, or damaged, told from the session's own log."""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .day_file import DayFile
from .day_lines import DayLine, format_line, looks_damaged, parse_line
from .files import BLOCK_BYTES, TURN_BYTES

_FOREVER = 2**63
_SPOTS_MOST = 1000


class Readable(Protocol):
    """A file that is read by offset."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset``."""
        ...


class Source(Readable, Protocol):
    """A session log, or its own copy in the central directory."""

    def size(self) -> int:
        """Return the length in bytes."""
        ...


class _Window:
    """Reads a session log line by line at random places, mostly forward, a block at a time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._start = 0
        self._data = b""

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._start or offset + size > self._start + len(self._data):
            self._start, self._data = offset, self.source.read(offset, max(size, 4 * BLOCK_BYTES))
        return self._data[offset - self._start : offset - self._start + size]


def log_lines(source: Source, start: int, stop: int, rest: bool) -> Iterator[tuple[int, bytes]]:
    """Give ``(offset, text without newline)`` of the lines in ``[start, stop)``; the unfinished last one if ``rest``."""
    held: list[bytes] = []
    place = start
    while place < stop:
        data = source.read(place, min(TURN_BYTES, stop - place))
        if not data:
            break
        place += len(data)
        first, *pieces = data.split(b"\n")
        # Joined once: a line of 100 MB would otherwise be copied a hundred times.
        held.append(first)
        if pieces:
            pieces.insert(0, b"".join(held))
            held = [pieces.pop()]
        for piece in pieces:
            yield start, piece
            start += len(piece) + 1
    if rest and any(held):
        yield start, b"".join(held)


def whole_lines(file: Readable, place: int, end: int) -> bytes:
    """Return the whole lines of the block at ``place``, at least one however long it is; empty where there is none."""
    held: list[bytes] = []
    while data := file.read(place, min(BLOCK_BYTES, end - place)):
        whole = data.rfind(b"\n") + 1
        if whole:
            return b"".join([*held, data[:whole]])
        held.append(data)
        place += len(data)
    return b""


class SessionAudit:
    """Collects which parts of one session log the day's log holds.

    Args:
        key: the session's key in the day's log.
        source: its log.
        limit: length up to which the day's log must hold it.
    """

    def __init__(self, key: bytes, source: Source, limit: int) -> None:
        self.key = key
        self.limit = limit
        self.source = source
        self.furthest = 0
        self._window = _Window(source)
        self._size = source.size()
        self._starts = [0]
        self._stops = [_FOREVER]

    def feed(self, line: DayLine) -> bool:
        """Take in a valid line; False when it is doubled or is not what the session log holds at its offset."""
        stop = self._stop_of(line)
        if stop is None:
            return False
        index = bisect_right(self._starts, line.offset) - 1
        if index < 0 or self._stops[index] < stop:
            return False
        self._take(index, line.offset, stop)
        self.furthest = max(self.furthest, stop)
        return True

    def require(self, limit: int) -> None:
        """Set anew up to which length the day's log must hold the session log, which may have grown since."""
        self.limit = limit
        self._size = self.source.size()

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges of the session log below ``limit`` that the day's log lacks."""
        pairs = zip(self._starts, self._stops, strict=True)
        return [(start, min(stop, self.limit)) for start, stop in pairs if start < min(stop, self.limit)]

    def missing_lines(self, most_bytes: int) -> list[bytes]:
        """Return lines for the day's log that mend what is missing, about ``most_bytes`` of them at most."""
        lines, size = [], 0
        for start, stop in self.missing():
            for offset, text in log_lines(self.source, start, stop, rest=True):
                lines.append(format_line(self.key, offset, text))
                size += len(lines[-1])
                if size > most_bytes:
                    return lines
        return lines

    def _stop_of(self, line: DayLine) -> int | None:
        """Return the end of the line's place in the session log, or None when that place holds something else."""
        offset, size = line.offset, len(line.text)
        before = 1 if offset else 0
        held = self._window.read(offset - before, before + size + 1)
        if before and held[:1] != b"\n":
            return None
        held = held[before:]
        if held[:size] != line.text:
            return None
        if held[size:] == b"\n":
            return offset + size + 1
        return offset + size if size and offset + size == self._size and not held[size:] else None

    def _take(self, index: int, start: int, stop: int) -> None:
        left, right = self._starts[index], self._stops[index]
        if left == start and stop < right:
            self._starts[index] = stop
            return
        pieces = [(a, b) for a, b in ((left, start), (stop, right)) if a < b]
        self._starts[index : index + 1] = [a for a, _ in pieces]
        self._stops[index : index + 1] = [b for _, b in pieces]


class Pass:
    """One reading of the day's log from a line's start to its end, in slices; knows afterwards what must be mended."""

    def __init__(self, file: DayFile, start: int, session_of: Callable[[bytes], SessionAudit | None]) -> None:
        self.file = file
        self.place = start
        self.lines = 0
        self.keys: set[bytes] = set()
        self.bad: list[tuple[int, bytes]] = []
        self.odd: list[tuple[int, bytes]] = []
        self.odd_count = 0
        self._session_of = session_of

    def advance(self, end: int, most_bytes: int) -> bool:
        """Read on towards ``end`` (the end of a whole line); True when it is reached.

        Raises:
            OSError: the file is shorter by now.
        """
        stop = min(end, self.place + most_bytes)
        while self.place < stop:
            self.place += self._block(end)
        return self.place >= end

    def _block(self, end: int) -> int:
        """Take in at least one whole line from ``place`` on; return how many bytes they fill."""
        text = whole_lines(self.file, self.place, end)
        if not text:
            raise OSError(errno.EIO, "the day's log shrank while it was read", str(self.file.path))
        offset = self.place
        for piece in text[:-1].split(b"\n"):
            self._line(offset, piece)
            offset += len(piece) + 1
        return len(text)

    def _line(self, offset: int, raw: bytes) -> None:
        self.lines += 1
        if raw[:1] == b"#" or not raw:
            return
        line = parse_line(raw)
        if line is None:
            self.odd_count += 1
            if len(self.odd) < _SPOTS_MOST:
                self.odd.append((offset, raw))
            return
        self.keys.add(line.key)
        session = self._session_of(line.key)
        if session is not None and not session.feed(line) and len(self.bad) < _SPOTS_MOST:
            self.bad.append((offset, raw))

    def damage(self, missing: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Return what must be blanked: doubled and wrong lines, and invalid ones that this package once wrote.

        An invalid line without any mark of ours is damage if it is the rest of one of the ``missing`` lines.
        """
        lost = missing[:_SPOTS_MOST]
        odd = [
            (offset, raw)
            for offset, raw in self.odd
            if looks_damaged(raw, self.keys) or any(line.endswith(raw + b"\n") for line in lost)
        ]
        return self.bad + odd
