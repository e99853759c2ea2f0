"""Keeping one session's part of the day's log whole: read along behind the writing, judge at the end, mend what is wrong.

Auditing a day of many rigs at a session's end would keep the operator waiting, so the day's log is read along while the session
runs. Own lines that were read (or written) before are known by a checksum over each written stretch; at the end those are read
back at the speed of the disk, and only what came since is judged line by line. Whatever differs leads to a full audit.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from .copy import SourceLog
from .day_audit import Pass, SessionAudit
from .day_file import DayFile
from .files import TURN_BYTES

#: Read in one go without the lock, so that the session's own copy is not kept waiting; and the most that is read under it.
SLICE_BYTES = 4 * TURN_BYTES
_BACKLOG_BYTES = 16 * TURN_BYTES
_ROUNDS = 8


class Mender:
    """Audits and mends; all methods but :meth:`forget` and :meth:`distrust` may raise OSError.

    Attributes:
        needed: something may be wrong: an audit is due also before the session's end.
        damaged: mending was given up, since it does not last.
        settled: length of the session log for which everything was found in place; -1 before.
        backlog: missing lines, to be appended again.
    """

    def __init__(self, file: DayFile, key: bytes, source: SourceLog, warn: Callable[[str], None]) -> None:
        self.file = file
        self.key = key
        self.source = source
        self.warn = warn
        self.needed = self.damaged = False
        self.settled = -1
        self.backlog: list[bytes] = []
        self._rounds = 0
        self._pass: Pass | None = None
        self._session = SessionAudit(key, source, 0)
        self._end = 0
        self._stretches: list[tuple[int, int, int]] = []
        self._checked = 0
        self._fresh = False

    def forget(self) -> None:
        """Assume nothing any more: the next audit is a full one."""
        self._pass = None
        self._stretches = []
        self._checked = 0
        self.backlog = []

    def distrust(self) -> None:
        """Ask for a full audit as soon as possible."""
        self.forget()
        self.needed = not self.damaged

    def begin_end(self) -> None:
        """The session has ended: ask for an audit of everything."""
        self.needed, self._rounds, self._checked = True, 0, 0

    def wrote(self, place: int, data: bytes) -> None:
        """Remember a stretch of own lines as it was written."""
        self._stretches.append((place, len(data), crc32(data)))

    def read_along(self, first: int, end: int) -> None:
        """While there is nothing else to do: read on to ``end``, a whole line's end that was seen under the lock."""
        if self._pass is None:
            self._begin(first)
        assert self._pass is not None
        if self._pass.place < end:
            self._pass.advance(end, TURN_BYTES)
            self._fresh = False

    def read(self, first: int) -> bool:
        """Without the lock: read what can be read; True when only what came since is left for :meth:`judge`."""
        if self._pass is None:
            self._begin(first)
        assert self._pass is not None
        if self._end < self._pass.place:
            self._end = self.file.whole_end(self.file.end())
        if not self._pass.advance(self._end, SLICE_BYTES):
            return False
        return self._fresh or self._check_stretches()

    def _begin(self, first: int) -> None:
        self._session = session = SessionAudit(self.key, self.source, 0)
        self._end = self.file.whole_end(self.file.end())
        self._pass = Pass(self.file, min(first, self._end), lambda key: session if key == self.key else None)
        self._stretches = []
        self._checked = 0
        self._fresh = True

    def _check_stretches(self) -> bool:
        """Read own stretches back; True when all were, and are as they were written."""
        budget = SLICE_BYTES
        while self._checked < len(self._stretches) and budget > 0:
            place, size, checksum = self._stretches[self._checked]
            if crc32(self.file.read(place, size)) != checksum:
                self.forget()
                return False
            self._checked += 1
            budget -= size
        return self._checked == len(self._stretches)

    def judge(self, limit: int) -> bool:
        """Under the lock: read the rest, blank what is wrong, and note in ``backlog`` what must be appended again.

        Args:
            limit: length of the session log up to which everything must be there.

        Returns:
            True when there was something to mend.
        """
        assert self._pass is not None
        end, _ = self.file.cut_torn_tail()
        if end < self._pass.place:
            self.forget()
            return False
        if end - self._pass.place > SLICE_BYTES:
            self._end = end
            return False
        self._pass.advance(end, SLICE_BYTES)
        self._session.require(limit)
        missing = self._session.missing_lines(_BACKLOG_BYTES)
        wrong = self._pass.damage(missing)
        if not missing and not wrong:
            self.needed = False
            self.settled = limit
            return False
        self.forget()
        self._rounds += 1
        if self._rounds > _ROUNDS:
            self.needed, self.damaged = False, True
            self.warn(f"{self.file.path} cannot be kept whole: the share's locks do not work. The session's own copy is safe")
            return False
        self.file.blank(wrong)
        self.backlog = missing
        return True

    @property
    def furthest(self) -> int:
        """End of the furthest own line that was read."""
        return self._session.furthest

    def append_backlog(self, end: int) -> None:
        """Under the lock: append the next missing lines at ``end``."""
        size, count = 0, 0
        while count < len(self.backlog) and (not count or size + len(self.backlog[count]) <= TURN_BYTES):
            size += len(self.backlog[count])
            count += 1
        written, _ = self.file.append(end, self.backlog[:count])
        del self.backlog[:written]
