"""Following the output files of a process while they grow."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .output import BLOCK_BYTES, LineSplitter

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


class StreamFollower:
    """Reads one raw file as it grows and hands on its lines; memory stays bounded.

    Args:
        stream: ``stdout`` or ``stderr``.
        source: what the sink knows it by.
        path: the raw file.
        mark: called with the stream's name and a raw offset before lines go to the sink, for the journal. One mark serves many
            batches: the records written since it are counted from it on.
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
        data = os.read(self._fd, wanted) if wanted > 0 else b""
        if data:
            self.bytes_read += len(data)
            raw_from = self._splitter.next_from
            lines = self._splitter.feed(data)
            if lines:
                self._hand_on(lines, raw_from, self._splitter.next_from)
        if self._splitter.has_progress and time.monotonic() - self._progress_at_s >= PROGRESS_EVERY_S:
            progress = self._splitter.progress()
            if progress is not None:
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
