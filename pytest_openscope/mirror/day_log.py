"""One session's part of the day's log: its lines appended under the lock, its progress read from the file itself.

The file is its own write-ahead log. Nobody but the lock's holder changes it, sequential flushed writes leave one torn tail
at most, and how far a session has come is read from the very lines that it has written, so that no moment of a crash lies
between a write and its record. Where a server's locks fail, checksums and the audit find and mend the damage.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

from .copy import Hint, SourceLog
from .day_audit import log_lines, whole_lines
from .day_file import DayFile
from .day_lines import DayLine, format_line, parse_line
from .day_mend import SLICE_BYTES, Mender
from .files import BLOCK_BYTES, TURN_BYTES, MirrorJob

#: A session takes the lock again after this, or after so many times its last turn, whichever is longer: fifty writers on a
#: slow share then keep the lock in use for about half of the time. A session that is far behind only rests in proportion.
INTERVAL_S, REST_FACTOR = 1.0, 20.0
_HURRY_REST_S = 0.02
_BLOCKED_WARN_S = 60.0


class _Search:
    """Looks for a session's furthest line in the day's log, from ``start`` on."""

    def __init__(self, file: DayFile, key: bytes, start: int) -> None:
        self.file = file
        self.start = self.place = start
        self.first: int | None = None
        self.found: tuple[int, DayLine] | None = None
        self._mark = key + b" "

    def advance(self, end: int, most_bytes: int) -> bool:
        """Read on towards ``end`` (the end of a whole line); True when it is reached."""
        stop = min(end, self.place + most_bytes)
        while self.place < stop:
            text = whole_lines(self.file, self.place, end)
            if not text:
                raise OSError(errno.EIO, "the day's log shrank while it was read", str(self.file.path))
            self._lines(text[:-1])
            self.place += len(text)
        return self.place >= end

    def _lines(self, block: bytes) -> None:
        if self._mark not in block:
            return
        offset = self.place
        for raw in block.split(b"\n"):
            line = parse_line(raw) if raw.startswith(self._mark) else None
            if line is not None:
                self.first = offset if self.first is None else self.first
                if self.found is None or line.offset >= self.found[1].offset:
                    self.found = (offset, line)
            offset += len(raw) + 1


class DayLog:
    """Brings one session's lines into the day's log.

    Every method that touches the share may raise OSError; afterwards :meth:`drop` must be called: nothing is assumed then.

    Attributes:
        done: bytes of the session log that the day's log holds; None when that must be found out.
    """

    def __init__(self, job: MirrorJob, source: SourceLog, hint: Hint, beat: Callable[[], None], warn: Callable[[str], None]):
        self.file = DayFile(job.day_log, beat, Path(job.mirror_directory or ""))
        self.key = job.key
        self.source = source
        self.hint = hint
        self.warn = warn
        self.done: int | None = None
        self.fresh = False
        self._first: int | None = None
        self._last: tuple[int, bytes] | None = None
        self._search: _Search | None = None
        self._starts: list[int] = []
        self._mender = Mender(self.file, self.key, source, warn)
        self._whole_end = 0
        self._next_turn = 0.0
        self._warned_blocked = self._warned_damage = False

    def drop(self) -> None:
        """Close the file after an error; progress is unknown from here."""
        self.file.close()
        self.done = self._last = self._search = None
        self._mender.forget()
        self._whole_end = 0

    def turn(self, finishing: bool = False) -> bool:
        """Do what is due; True when more can be done at once."""
        now = time.monotonic()
        if finishing and not self.file.hurry:
            self._next_turn = 0.0
        self.file.hurry = finishing
        if not self.file.is_open:
            self._open()
        if self.done is None and not self._search_on():
            return True
        if self._mender.needed and self.done is not None:
            return self._audit_step(finishing)
        if now < self._next_turn:
            return self._read_along(finishing)
        batch = self._batch(finishing) if self.done is not None else []
        if self.done is not None and not batch:
            return self._read_along(finishing)
        if self.file.replaced():
            raise FileNotFoundError(errno.ENOENT, "the day's log was moved away", str(self.file.path))
        return self._locked(lambda: self._write_turn(batch, finishing), finishing)

    def settle(self) -> bool:
        """At the session's end: bring the rest and audit; True when nothing more can be done at once."""
        size = self.source.size()
        mender = self._mender
        if mender.settled == size:
            return True
        more = self.turn(finishing=True)
        if not more and self.done == size and not mender.needed and mender.settled != size:
            if mender.damaged:
                mender.settled = size
            else:
                mender.begin_end()
                more = True
        return not more

    @property
    def settled(self) -> int:
        """Length of the session log for which an audit found everything in place (or gave up mending); -1 before."""
        return self._mender.settled

    @property
    def waits_for_lock(self) -> bool:
        """True while another writer's lock keeps this session's lines out."""
        return self.file.blocked_s > 0

    def _open(self) -> None:
        self.file.open()
        end = self.file.end()
        same = self.hint.data.get("day_name") == self.file.path.name
        first = self.hint.number("day_first") if same else None
        last = self.hint.number("day_last") if same else None
        self._first = first
        if first is None and self.fresh:
            self._first = self.file.whole_end(end)
            self._starts = [self._first]
        else:
            self._starts = sorted({place for place in (last, first, 0) if place is not None and place <= end})
        self._search = _Search(self.file, self.key, self._starts.pop())

    def _search_on(self) -> bool:
        """Look for the own furthest line without the lock; True when only what came since is left to read."""
        if self._search is None:
            self._open_search(0)
        assert self._search is not None
        end = self.file.whole_end(self.file.end())
        if end < self._search.place:
            self._starts = []
            self._search = _Search(self.file, self.key, 0)
        if not self._search.advance(end, SLICE_BYTES):
            return False
        if self._search.found is None and self._starts:
            self._open_search(self._starts.pop())
            return False
        return True

    def _open_search(self, start: int) -> None:
        self._search = _Search(self.file, self.key, start)

    def _locked(self, hold: Callable[[], bool], finishing: bool) -> bool:
        """Run ``hold`` under the lock if it is free; True when there is more to do at once."""
        if not self.file.try_lock():
            self._warn_blocked()
            return False
        started = time.monotonic()
        more = hold()
        self.file.unlock()
        self._warned_blocked = False
        last_s = time.monotonic() - started
        rest_s = REST_FACTOR * last_s if more and self._behind() else max(INTERVAL_S, REST_FACTOR * last_s)
        self._next_turn = time.monotonic() + (min(last_s, _HURRY_REST_S) if finishing else rest_s)
        self._save_hint()
        return more and finishing

    def _behind(self) -> bool:
        return self.source.size() - (self.done or 0) > TURN_BYTES

    def _write_turn(self, batch: list[tuple[bytes, int]], finishing: bool) -> bool:
        end, intact = self.file.cut_torn_tail(self._last)
        if not intact:
            self._found_damage()
        if self.done is None:
            if not self._conclude(end):
                return True
            batch = self._batch(finishing)
        if not batch:
            return self._mender.needed
        self._note_first(end)
        count, new_end = self.file.append(end, [line for line, _ in batch])
        last, self.done = batch[count - 1]
        self._last = (new_end - len(last), last)
        self._mender.wrote(end, b"".join(line for line, _ in batch[:count]))
        self._whole_end = new_end
        return True

    def _read_along(self, finishing: bool) -> bool:
        """Nothing to write: audit a part of what was written since, by all, up to the own last turn."""
        if not finishing and self.done is not None and self._first is not None and self._whole_end:
            self._mender.read_along(self._first, self._whole_end)
        return False

    def _conclude(self, end: int) -> bool:
        """Under the lock: finish the search; False when too much is left to read under it."""
        search = self._search
        if search is None or end < search.place or end - search.place > SLICE_BYTES:
            return False
        search.advance(end, SLICE_BYTES)
        self.done, self._search = 0, None
        if search.found is not None:
            place, line = search.found
            self.done = min(line.offset + len(line.text) + 1, self.source.size())
            self._last = (place, format_line(*line))
            if self._first is None or search.start == 0:
                self._first = search.first
        return True

    def _batch(self, finishing: bool) -> list[tuple[bytes, int]]:
        """Return the next lines with the session log's offset after each, about one turn's worth."""
        size = self.source.size()
        assert self.done is not None
        if self.done > size or (self.done and self.source.read(self.done - 1, 1) != b"\n" and self.done < size):
            self._step_back(size)
        batch: list[tuple[bytes, int]] = []
        total = 0
        for offset, text in log_lines(self.source, self.done, size, rest=finishing):
            line = format_line(self.key, offset, text)
            total += len(line)
            if batch and total > TURN_BYTES:
                break
            batch.append((line, min(offset + len(text) + 1, size)))
        return batch

    def _step_back(self, size: int) -> None:
        """The session log was shortened, or an unfinished last line went on: go back to a line's start, audit later."""
        place = min(self.done or 0, size)
        while place:
            start = max(0, place - BLOCK_BYTES)
            found = self.source.read(start, place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        self.done = place
        self._forget_last()
        self._mender.distrust()

    def _found_damage(self) -> None:
        self._forget_last()
        self._mender.distrust()
        if not self._warned_damage:
            self._warned_damage = True
            self.warn(f"lines in {self.file.path} were damaged by another writer; they are mended (do the share's locks work?)")

    def _audit_step(self, finishing: bool) -> bool:
        if self._mender.backlog:
            return self._locked(self._append_backlog, finishing)
        if not self._mender.read(self._first or 0):
            return True
        return self._locked(lambda: self._judge(finishing), finishing)

    def _judge(self, finishing: bool) -> bool:
        mended = self._mender.judge(self.source.size() if finishing else min(self.done or 0, self.source.size()))
        self.done = max(self.done or 0, self._mender.furthest)
        if mended:
            self._forget_last()
        return True

    def _append_backlog(self) -> bool:
        end, _ = self.file.cut_torn_tail()
        self._note_first(end)
        self._mender.append_backlog(end)
        return True

    def _note_first(self, end: int) -> None:
        """Remember, before anything is written at ``end``, from where on own lines may lie."""
        if self._first is None or end < self._first:
            self._first = end
            self._save_hint()

    def _forget_last(self) -> None:
        self._last = None
        self.hint.data.pop("day_last", None)

    def _save_hint(self) -> None:
        values = {"day_name": self.file.path.name, "day_first": self._first}
        if self._last is not None:
            values["day_last"] = self._last[0]
        if any(self.hint.data.get(name) != value for name, value in values.items()):
            self.hint.save(**values)

    def _warn_blocked(self) -> None:
        if self.file.blocked_s > _BLOCKED_WARN_S and not self._warned_blocked:
            self._warned_blocked = True
            self.warn(f"{self.file.path} has been locked by another PC for {self.file.blocked_s:.0f} s; waiting for it")
