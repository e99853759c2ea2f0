r"""Lines out of the raw output of an acquisition process, the same ones however the bytes arrive.

The session reads the output files while they grow and writes their lines into its log; after a crash the sidecar reads on
where the log ends. Both must count the same lines, so what a line is depends on the bytes alone, never on time or blocks:

* A line ends with ``\n``; the ``\r`` before it goes.
* Of a line with carriage returns (a progress bar) the last state that is not blank counts.
* A state longer than :data:`MAX_LINE_BYTES` is handed on in pieces, each but the last ending in :data:`CONTINUES`.
* What stands behind the last ``\n`` of a finished file is a line too.

A progress bar would so be silent until its end. :meth:`LineSplitter.progress` hands out its newest state in between, whenever
the caller likes; the offset that it gives (the ``\r`` behind that state) tells :func:`replay` that this was done.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

#: Gets the source (``camera.stdout``), whole lines as raw bytes, and where they stand in the raw file. Their logger in the
#: session log is ``acquisition.`` and the source. An answer of False or 0 tells that they were not all written.
Sink = Callable[[str, list[bytes], int, int], Any]

TAIL_LINES = 200
TAIL_LINE_BYTES = 2048
#: The newest state of a progress bar goes into the log at most this often.
PROGRESS_EVERY_S = 1.0
#: A new mark in the journal after so much time or output bounds what a recovery has to count.
MARK_EVERY_S = 10.0
MARK_EVERY_BYTES = 4 * 1024 * 1024

#: Longest piece of a line that is kept in memory and written as one record.
MAX_LINE_BYTES = 1024 * 1024
#: Read at once.
BLOCK_BYTES = 512 * 1024
CONTINUES = b" [line continues]"


class LineSplitter:
    """Cuts one stream into lines, from ``offset`` in the raw file on.

    ``remainder``: the bytes follow a state that :meth:`progress` has handed out, so a blank rest of that line is no line.
    """

    def __init__(self, offset: int = 0, remainder: bool = False) -> None:
        #: Raw offset of the first byte that belongs to no line handed out so far.
        self.next_from = offset
        self._remainder = remainder
        self._at = offset  # of the first byte of _pending
        self._pending = b""  # the current state of the current line, without the carriage returns behind it
        self._returns = 0  # how many of those have come
        self._after_cut = False  # _pending continues a piece
        self._state: bytes | None = None  # the newest whole state of the current line that is not blank
        self._state_span = (offset, offset)  # from its end to the first byte behind its carriage returns
        self._state_cut = False

    @property
    def pending(self) -> bytes:
        """What has come of a line that is not finished."""
        return self._pending

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that end in ``data``; at most two states stay in memory."""
        lines: list[bytes] = []
        for start in range(0, len(data), BLOCK_BYTES):
            self._feed_block(data[start : start + BLOCK_BYTES], lines)
        return lines

    def progress(self) -> tuple[bytes, int, int] | None:
        """Hand out the newest state of a progress bar, and from where to where it counts; None when there is no new one."""
        if self._state is None or self._state_cut:
            return None
        state, self._state = self._state, None
        self._remainder = True
        self.next_from = self._state_span[1]
        return state, *self._state_span

    def finish(self) -> list[bytes]:
        """Return what stands behind the last newline, as the last line; the file has ended."""
        lines: list[bytes] = []
        if self._pending or self._state is not None:
            self._end_line(lines, newline_bytes=0)
        return lines

    def _feed_block(self, data: bytes, lines: list[bytes]) -> None:
        first, newline, rest = data.partition(b"\n")
        self._extend(first, lines)
        if not newline:
            return
        self._end_line(lines)
        if b"\r" not in rest or (not rest.endswith(b"\r") and rest.count(b"\r") == rest.count(b"\r\n")):
            self._feed_plain(rest, lines)
            return
        *whole, last = rest.split(b"\n")
        for line in whole:
            self._extend(line, lines)
            self._end_line(lines)
        self._extend(last, lines)

    def _feed_plain(self, rest: bytes, lines: list[bytes]) -> None:
        """Take bytes that begin a line and hold no carriage return but before a newline: the fast way for most output."""
        end = rest.rfind(b"\n") + 1
        if end:
            whole = rest[:end].replace(b"\r\n", b"\n").split(b"\n")
            whole.pop()
            lines += whole  # none is too long: a block is shorter than the longest line
            self._at += end
            self.next_from = self._at
        self._pending = rest[end:]

    def _extend(self, text: bytes, lines: list[bytes]) -> None:
        """Add bytes without a newline to the current line."""
        for index, part in enumerate(text.split(b"\r")):
            if index:
                self._returns += 1
            if part:
                if self._returns:
                    self._end_state()
                self._pending += part
                if len(self._pending) > MAX_LINE_BYTES:
                    self._cut(lines)

    def _end_state(self) -> None:
        """Something follows the carriage returns, so they end a state and not the line."""
        end = self._at + len(self._pending)
        self._at = end + self._returns
        if self._pending.strip():
            self._state, self._state_span, self._state_cut = self._pending, (end, self._at), self._after_cut
        self._pending, self._returns, self._after_cut = b"", 0, False

    def _end_line(self, lines: list[bytes], newline_bytes: int = 1) -> None:
        line = self._pending
        if self._state is not None and not line.strip():
            line = self._state
        if not self._remainder or line.strip():
            lines.append(line)
        self._at += len(self._pending) + self._returns + newline_bytes
        self.next_from = self._at
        self._pending, self._returns, self._state = b"", 0, None
        self._remainder = self._after_cut = False

    def _cut(self, lines: list[bytes]) -> None:
        """Hand out pieces of an overlong state; none ends within a UTF-8 character, the rest is never empty."""
        while len(self._pending) > MAX_LINE_BYTES:
            end = MAX_LINE_BYTES
            while end > MAX_LINE_BYTES - 3 and self._pending[end] & 0xC0 == 0x80:
                end -= 1
            lines.append(self._pending[:end] + CONTINUES)
            self._pending = self._pending[end:]
            self._at += end
        self.next_from = self._at
        self._state, self._remainder, self._after_cut = None, False, True


class StreamFollower:
    """Reads one raw file as it grows and hands on its lines; memory stays bounded.

    Args:
        stream: ``stdout`` or ``stderr``.
        source: what the sink knows it by.
        path: the raw file.
        mark: told before lines go to the sink, for the journal; the records of many batches are counted from one mark on.
        sink: gets the lines; must not raise.
    """

    def __init__(self, stream: str, source: str, path: Path, mark: Callable[[str, int], None], sink: Sink) -> None:
        self.stream = stream
        self.bytes_read = 0
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._source = source
        self._mark, self._sink = mark, sink
        self._splitter = LineSplitter()
        self._fd: int | None = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._marked_at_s = float("-inf")
        self._marked_from = 0
        self._progress_at_s = float("-inf")

    def poll(self, end: int | None = None) -> int:
        """Read what has come, at most one block and not beyond ``end``; return how many bytes that were."""
        if self._fd is None:
            return 0
        wanted = BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - self.bytes_read)
        # Where the count says: under Wine a descriptor that was once at the end reads nothing more until its position is set.
        os.lseek(self._fd, self.bytes_read, os.SEEK_SET)
        data = os.read(self._fd, wanted) if wanted > 0 else b""
        if data:
            self.bytes_read += len(data)
            raw_from = self._splitter.next_from
            lines = self._splitter.feed(data)
            if lines:
                self._hand_on(lines, raw_from, self._splitter.next_from)
        if time.monotonic() - self._progress_at_s >= PROGRESS_EVERY_S and (progress := self._splitter.progress()) is not None:
            self._progress_at_s = time.monotonic()
            state, raw_from, raw_to = progress
            self._marked_at_s = float("-inf")
            self._hand_on([state], raw_from, raw_to)
        return len(data)

    def _hand_on(self, lines: list[bytes], raw_from: int, raw_to: int) -> None:
        self.tail.extend(line[:TAIL_LINE_BYTES] for line in lines[-TAIL_LINES:])
        now_s = time.monotonic()
        if now_s - self._marked_at_s > MARK_EVERY_S or raw_from - self._marked_from > MARK_EVERY_BYTES:
            self._marked_at_s, self._marked_from = now_s, raw_from
            self._mark(self.stream, raw_from)
        written = self._sink(self._source, lines, raw_from, raw_to)
        if written is not None and not written:
            self._marked_at_s = float("-inf")

    def finish(self) -> None:
        """Read up to the present end of the file, which a survivor may go on to extend, and close it."""
        if self._fd is None:
            return
        end = os.fstat(self._fd).st_size
        while self.poll(end):
            pass
        raw_from = self._splitter.next_from
        lines = self._splitter.finish()
        if lines:
            self._hand_on(lines, raw_from, self._splitter.next_from)
        os.close(self._fd)
        self._fd = None

    def tail_text(self) -> list[str]:
        """Return the last lines as text, the unfinished one included."""
        lines = [*self.tail]
        if self._splitter.pending:
            lines.append(self._splitter.pending[:TAIL_LINE_BYTES])
        return [line.decode("utf-8", "replace") for line in lines]


def replay(path: Path, raw_from: int = 0, skip_lines: int = 0) -> Iterator[list[bytes]]:
    """Yield the lines of a raw file from ``raw_from`` to its present end, without the first ``skip_lines`` of them.

    ``raw_from`` comes from an ``acquisition_batch`` event of the journal, and ``skip_lines`` is how many records of that
    stream stand in the session log from its ``log_size`` on: what comes out, in lists of bounded size, is what the log lacks.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        for lines in _lines_from(stream, raw_from):
            if skip_lines:
                skipped = min(skip_lines, len(lines))
                skip_lines -= skipped
                lines = lines[skipped:]
            if lines:
                yield lines


def _lines_from(stream: BinaryIO, raw_from: int) -> Iterator[list[bytes]]:
    state = _state_before(stream, raw_from)
    if state is not None:
        yield [state]
        stream.seek(raw_from)
        while stream.read(1) == b"\r":
            raw_from += 1
    stream.seek(max(0, raw_from - 1))
    splitter = LineSplitter(raw_from, remainder=raw_from > 0 and stream.read(1) == b"\r")
    while True:
        data = stream.read(BLOCK_BYTES)
        if not data:
            break
        yield splitter.feed(data)
    yield splitter.finish()


def _state_before(stream: BinaryIO, raw_from: int) -> bytes | None:
    """Return the state of a progress bar that ends at ``raw_from``, or None where an ordinary line begins there."""
    start = max(0, raw_from - MAX_LINE_BYTES)
    stream.seek(start)
    before = stream.read(raw_from - start)
    if not before or before[-1:] in (b"\r", b"\n") or stream.read(1) != b"\r":
        return None
    return before[max(before.rfind(b"\r"), before.rfind(b"\n")) + 1 :]
