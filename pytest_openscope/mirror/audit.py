"""Auditing the day's log: which lines are missing, doubled or damaged, told from the sessions' own logs.

A session audits its own lines (:mod:`.day_log`); :func:`audit_day_log` does it by hand for a whole day, from the sessions'
own copies beside the day's log.
"""

from __future__ import annotations

import errno
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .copy import SourceLog
from .day_file import DayFile, DayLine, format_line, looks_damaged, parse_line
from .files import BLOCK_BYTES, LOG_NAME, TURN_BYTES, day_key

_FOREVER = 2**63
_SPOTS_MOST = 1000
#: Written beside a session's own copy at its very end: such a session appends nothing more by itself.
_END_MARK = "end_state.json"
_ROUNDS = 8


class _Window:
    """Reads a session log line by line at random places, mostly forward, a block at a time."""

    def __init__(self, source: SourceLog) -> None:
        self.source = source
        self._start = 0
        self._data = b""

    def read(self, offset: int, size: int) -> bytes:
        if offset < self._start or offset + size > self._start + len(self._data):
            self._start, self._data = offset, self.source.read(offset, max(size, 4 * BLOCK_BYTES))
        return self._data[offset - self._start : offset - self._start + size]


def log_lines(source: SourceLog, start: int, stop: int, rest: bool) -> Iterator[tuple[int, bytes]]:
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


def whole_lines(file: DayFile, place: int, end: int) -> bytes:
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
    """Collects which parts of one session log the day's log holds; ``furthest`` is the end of the furthest line of them."""

    def __init__(self, key: bytes, source: SourceLog) -> None:
        self.key = key
        self.source = source
        self.furthest = 0
        self._window = _Window(source)
        #: What the day's log lacks, in order.
        self._gaps = [(0, _FOREVER)]

    def feed(self, line: DayLine) -> bool:
        """Take in a valid line; False when it is doubled or is not what the session log holds at its offset."""
        stop = self._stop_of(line)
        if stop is None:
            return False
        index = bisect_right(self._gaps, (line.offset, _FOREVER)) - 1
        first, last = self._gaps[index] if index >= 0 else (0, 0)
        if last < stop:
            return False
        rest = ((first, line.offset), (stop, last))
        self._gaps[index : index + 1] = [gap for gap in rest if gap[0] < gap[1]]
        self.furthest = max(self.furthest, stop)
        return True

    def missing(self, limit: int, since: int = 0) -> list[tuple[int, int]]:
        """Return the ranges of the session log between ``since`` and ``limit`` that the day's log lacks."""
        ranges = [(max(start, since), min(stop, limit)) for start, stop in self._gaps]
        return [(start, stop) for start, stop in ranges if start < stop]

    def missing_lines(self, limit: int, most_bytes: int, rest: bool = True, since: int = 0) -> list[bytes]:
        """Return lines for the day's log that mend what :meth:`missing` tells, about ``most_bytes`` of them at most.

        Args:
            rest: also the log's last line where it is unfinished.
        """
        lines, size = [], 0
        for start, stop in self.missing(limit, since):
            for offset, text in log_lines(self.source, start, stop, rest):
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
        return offset + size if size and offset + size == self.source.size() and not held[size:] else None


class Pass:
    """One reading of the day's log from a line's start to its end, in slices; knows afterwards what must be mended.

    Attributes:
        place: how far it has come.
        first: where the first valid line of an audited session begins.
    """

    def __init__(self, file: DayFile, start: int, session_of: Callable[[bytes], SessionAudit | None]) -> None:
        self.file = file
        self.place = start
        self.first: int | None = None
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
            text = whole_lines(self.file, self.place, end)
            if not text:
                raise OSError(errno.EIO, "the day's log shrank while it was read", str(self.file.path))
            for piece in text[:-1].split(b"\n"):
                self._line(self.place, piece)
                self.place += len(piece) + 1
        return self.place >= end

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
        if session is None:
            return
        self.first = offset if self.first is None else self.first
        if not session.feed(line) and len(self.bad) < _SPOTS_MOST:
            self.bad.append((offset, raw))

    def take_damage(self, missing: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Return, once, what must be blanked: doubled and wrong lines, and invalid ones that this package once wrote.

        An invalid line without any mark of ours is damage if it is the rest of one of the ``missing`` lines.
        """
        lost = missing[:_SPOTS_MOST]
        damaged: list[tuple[int, bytes]] = self.bad
        others: list[tuple[int, bytes]] = []
        for offset, raw in self.odd:
            ours = looks_damaged(raw, self.keys) or any(line.endswith(raw + b"\n") for line in lost)
            (damaged if ours else others).append((offset, raw))
        self.bad, self.odd = [], others
        return damaged


@dataclass
class AuditReport:
    """What an audit found and did.

    Attributes:
        path: the day's log.
        lines: lines read in the last round.
        sessions: sessions that were compared with their own copies.
        blanked: damaged, doubled or wrong lines that were blanked.
        appended: missing lines that were appended.
        other_lines: lines that no session of this package wrote; they are left alone.
        running: sessions that have not ended; only damage is mended for them, they append what is missing themselves.
        unclear: sessions that are not compared, with the reason.
        clean: the last round found nothing to mend.
    """

    path: Path
    lines: int = 0
    sessions: list[str] = field(default_factory=list)
    blanked: int = 0
    appended: int = 0
    other_lines: int = 0
    running: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    clean: bool = False

    def __str__(self) -> str:
        text = (
            f"{self.path}: {self.lines} lines, {len(self.sessions)} sessions compared, {self.blanked} lines blanked, "
            f"{self.appended} appended: {'clean' if self.clean else 'NOT clean'}"
        )
        for what, names in (("still running", self.running), ("not compared", self.unclear)):
            text += "".join(f"\n  {what}: {name}" for name in names)
        return text + (f"\n  {self.other_lines} lines of other programs left alone" if self.other_lines else "")


def audit_day_log(day_log_path: str | Path, lock_wait_s: float = 300.0) -> AuditReport:
    """Mend ``YYYY/MM/DD/launcher.log`` from the sessions' own copies in ``<rig>/<session>/`` beside it.

    Lines of other programs are left alone; damaged or doubled lines of ours are blanked in place, missing lines of ended
    sessions appended. May be run at any time, also while sessions write.

    Raises:
        OSError: the file is missing, not a day's log, or the share fails.
        TimeoutError: another PC has kept the file locked for ``lock_wait_s``.
    """
    path = Path(day_log_path)
    report = AuditReport(path)
    file = DayFile(path, lambda: None)
    file.open(create=False)
    if file.path != path:
        file.close()
        raise FileExistsError(f"{path} was not written by this package; {file.path.name} beside it was")
    sources = dict(_sources(path.parent, report))
    try:
        for _ in range(_ROUNDS):
            if _round(file, sources, report, lock_wait_s):
                report.clean = True
                break
    finally:
        file.close()
        for source in sources.values():
            source.close()
    return report


def _sources(folder: Path, report: AuditReport) -> Iterator[tuple[bytes, SourceLog]]:
    """Give key and own copy of every session beside the day's log that has ended; tell the report of all."""
    for session in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        name = f"{session.parent.name}/{session.name}"
        logs = list(session.glob("launcher*.log"))
        if [log.name for log in logs] != [LOG_NAME]:
            report.unclear.append(f"{name} ({'more than one' if logs else 'no'} log in its folder)")
        elif (session / _END_MARK).exists():
            report.sessions.append(name)
            yield day_key(session.parent.name, session.name), SourceLog(logs[0])
        else:
            report.running.append(name)


def _round(file: DayFile, sources: dict[bytes, SourceLog], report: AuditReport, lock_wait_s: float) -> bool:
    """Read the whole file, the last part under the lock, and mend; True when there was nothing to mend."""
    # Taking the lock once makes network clients give up what they have cached, before the long part is read without it.
    _lock(file, lock_wait_s)
    file.unlock()
    audits = {key: SessionAudit(key, source) for key, source in sources.items()}
    reading = Pass(file, 0, audits.get)
    while not reading.advance(file.whole_end(file.end()), 64 * TURN_BYTES):
        pass
    _lock(file, lock_wait_s)
    try:
        end = file.cut_torn_tail()
        if end < reading.place:
            return False
        reading.advance(end, end)
        missing = [line for one in audits.values() for line in one.missing_lines(one.source.size(), TURN_BYTES)]
        wrong = reading.take_damage(missing)
        report.lines = reading.lines
        report.other_lines = reading.odd_count - sum(parse_line(raw) is None for _, raw in wrong)
        report.blanked += file.blank(wrong)
        nothing = not wrong and not missing
        while missing:
            count, _ = file.append(end, missing)
            report.appended += count
            del missing[:count]
            file.unlock()
            _lock(file, lock_wait_s)
            end = file.cut_torn_tail()
        return nothing
    finally:
        file.unlock()


def _lock(file: DayFile, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not file.try_lock():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file.path} has been locked by another PC for {wait_s:.0f} s")
        time.sleep(0.01)
