"""One session's part of the day's log: its lines appended under the lock, its progress read from the file itself.

The file is its own write-ahead log. Nobody but the lock's holder changes it, sequential flushed writes leave one torn tail
at most, and how far a session has come is read from the very lines that it has written, so that no moment of a crash lies
between a write and its record. So a session reads the day's log on to its end, most of it without the lock, and then appends
whatever of its own log is missing.

Where a server's locks fail, checksums find the damage: own lines that were written stretch by stretch are read back at the
session's end, at the speed of the disk. Whatever differs leads to a reading from the beginning; wrong lines are blanked, and
missing ones appended again.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from .audit import Pass, SessionAudit
from .copy import Hint, SourceLog
from .day_file import DayFile, parse_line
from .files import TURN_BYTES, MirrorJob, same_file

#: A session takes the lock again after this, or after so many times its last turn, whichever is longer: fifty writers on a
#: slow share then keep the lock in use for about half of the time. A session that is far behind only rests in proportion.
INTERVAL_S, REST_FACTOR = 1.0, 20.0
#: Read in one go without the lock, so that the session's own copy is not kept waiting; and the most that is read under it.
SLICE_BYTES = 4 * TURN_BYTES
_HURRY_REST_S = 0.02
_BLOCKED_WARN_S = 60.0
_ROUNDS = 8


class DayLog:
    """Brings one session's lines into the day's log.

    Every method that touches the share may raise OSError; afterwards :meth:`drop` must be called: nothing is assumed then.

    Attributes:
        done: bytes of the session log that the day's log holds; None when that must be found out.
        settled: length of the session log for which everything was found in place (or mending was given up); -1 before.
        fresh: nothing of this session was in the central directory before.
    """

    def __init__(self, job: MirrorJob, source: SourceLog, hint: Hint, beat: Callable[[], None], warn: Callable[[str], None]):
        self.file = DayFile(job.day_log, beat, Path(job.mirror_directory))
        self.key = job.key
        self.source = source
        self.hint = hint
        self.warn = warn
        self.done: int | None = None
        self.settled = -1
        self.fresh = False
        #: From where on own lines may lie.
        self._first: int | None = None
        self._next_turn = 0.0
        self._warned_blocked = False
        #: Something was mended since the last reading from the beginning.
        self._mended = False
        self._rounds = 0
        self._given_up = False
        self._start_again()

    def _start_again(self) -> None:
        """Assume nothing any more: the day's log is read from the beginning."""
        self.done = None
        self._reading: Pass | None = None
        self._audit = SessionAudit(self.key, self.source)
        #: Place, size and checksum of what was written.
        self._stretches: list[tuple[int, int, int]] = []

    def drop(self) -> None:
        """Close the file after an error; progress is unknown from here."""
        self.file.close()
        self._start_again()

    def turn(self, finishing: bool = False) -> bool:
        """Do what is due, at the session's end also an audit; True when more can be done at once."""
        if finishing and self.settled == self.source.size():
            return False
        if finishing and not self.file.hurry:
            self._next_turn, self._rounds = 0.0, 0
        self.file.hurry = finishing
        if self.file.fd < 0:
            self.file.open()
        if self.done is not None and time.monotonic() < self._next_turn:
            return False
        if self.done is not None and self._log_was_changed(self.done):
            self._start_again()
        if self.done is not None and not (finishing or self._mended or self._missing(finishing, most_bytes=0)):
            return False
        if not self._read_on() or (finishing and not self._stretches_are_good()):
            return True
        if not same_file(self.file.path, self.file.fd):
            raise FileNotFoundError(errno.ENOENT, "the day's log was moved away", str(self.file.path))
        if not self.file.try_lock():
            self._warn_blocked()
            return False
        started = time.monotonic()
        more = self._hold(finishing)
        self.file.unlock()
        self._warned_blocked = False
        last_s = time.monotonic() - started
        behind = more and self.source.size() - (self.done or 0) > TURN_BYTES
        rest_s = REST_FACTOR * last_s if behind else max(INTERVAL_S, REST_FACTOR * last_s)
        self._next_turn = time.monotonic() + (min(last_s, _HURRY_REST_S) if finishing else rest_s)
        return more and finishing

    def _log_was_changed(self, done: int) -> bool:
        """Tell whether the session log was shortened, or an unfinished last line went on."""
        size = self.source.size()
        return done > size or (0 < done < size and self.source.read(done - 1, 1) != b"\n")

    def _missing(self, finishing: bool, most_bytes: int = TURN_BYTES) -> list[bytes]:
        since = self._audit.furthest if self._given_up else 0
        return self._audit.missing_lines(self.source.size(), most_bytes, finishing, since)

    def _read_on(self) -> bool:
        """Read what others wrote, without the lock; True when only what comes meanwhile is left."""
        end = self.file.whole_end(self.file.end())
        if self._reading is None:
            self._reading = Pass(self.file, self._start(end), lambda key: self._audit if key == self.key else None)
            self._reading.keys.add(self.key)
        if end < self._reading.place:
            self._start_again()
            return False
        if not self._reading.advance(end, SLICE_BYTES):
            return False
        if self.done is None and self._reading.first is None and self._first and not self.fresh:
            # It is not where it was remembered to be.
            self._first = 0
            self._start_again()
            return False
        return True

    def _start(self, end: int) -> int:
        if self._first is None and self.hint.data.get("day_name") == self.file.path.name:
            self._first = self.hint.data.get("day_first")
        if self._first is None and self.fresh:
            self._first = end
        return min(self._first or 0, end)

    def _stretches_are_good(self) -> bool:
        """Read own stretches back, a part in a turn; True when all were, and are as they were written."""
        budget = SLICE_BYTES
        while self._stretches and budget > 0:
            place, size, checksum = self._stretches[-1]
            if crc32(self.file.read(place, size)) != checksum and not self._given_up:
                self.warn(
                    f"lines in {self.file.path} were damaged by another writer; they are mended (do the share's locks work?)"
                )
                self._start_again()
                return False
            self._stretches.pop()
            budget -= size
        return not self._stretches

    def _hold(self, finishing: bool) -> bool:
        """Under the lock: mend what is wrong, append what is missing; True when there is more to do at once."""
        end = self.file.cut_torn_tail()
        reading = self._reading
        assert reading is not None
        if end < reading.place:
            self._start_again()
            return True
        if end - reading.place > SLICE_BYTES:
            return True
        reading.advance(end, SLICE_BYTES)
        size = self.source.size()
        missing = self._missing(finishing)
        if self.done is None and not self._first:
            self._first = end if reading.first is None else reading.first
        if (finishing or self.done is None) and not self._given_up and (wrong := reading.take_damage(missing)):
            self.file.blank(wrong)
            self._mended = True
        self.done = self._audit.furthest
        if missing:
            self._append(end, missing)
            return True
        if self._mended:
            self._look_once_more()
            return True
        if finishing and not self._stretches:
            self.settled = size
        return bool(self._stretches)

    def _append(self, end: int, missing: list[bytes]) -> None:
        # Remembered before anything is written.
        self._first = min(self._first or 0, end)
        place = {"day_name": self.file.path.name, "day_first": self._first}
        if any(self.hint.data.get(name) != value for name, value in place.items()):
            self.hint.save(**place)
        count, new_end = self.file.append(end, missing)
        written = missing[:count]
        self._stretches.append((end, new_end - end, crc32(b"".join(written))))
        assert self._reading is not None
        self._reading.place = new_end
        for raw in written:
            line = parse_line(raw[:-1])
            assert line is not None
            self._mended = self._mended or line.offset < self._audit.furthest
            self._audit.feed(line)
        self.done = self._audit.furthest

    def _look_once_more(self) -> None:
        """Read everything again after mending, unless it does not last."""
        self._mended = False
        self._rounds += 1
        if self._rounds > _ROUNDS:
            self._given_up = True
            self.warn(f"{self.file.path} cannot be kept whole: the share's locks do not work. The session's own copy is safe")
        else:
            self._start_again()

    def _warn_blocked(self) -> None:
        if self.file.blocked_s > _BLOCKED_WARN_S and not self._warned_blocked:
            self._warned_blocked = True
            self.warn(f"{self.file.path} has been locked by another PC for {self.file.blocked_s:.0f} s; waiting for it")
