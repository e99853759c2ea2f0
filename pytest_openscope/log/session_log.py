"""The session log: every record of every logger, in the operating system's hands before the logging call returns.

Records are taken where each logger hands them to its handlers (:meth:`logging.Logger.callHandlers`), not by a handler of the
root logger: so those of loggers that do not propagate are there, ``basicConfig(force=True)``, ``dictConfig`` and
``root.handlers.clear()`` cannot remove it, ``basicConfig()`` in an experimenter's ``conftest.py`` still works, and
``logging.lastResort`` still speaks. Handlers of others see exactly what they would see without a session log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from ..system import ClockChange, ClockWatch, clock, time_field
from .lines import encode_batch, head, record_text
from .tap import Levels, Tap
from .writer import LogWriter

Masker = Callable[[str], str]
#: Says that the times of a log jump, and by how much.
CLOCK_LOGGER = "pytest_openscope.clock"
#: Distinct pairs of logger and level whose line head is kept; loggers named after objects must not fill the memory.
_HEADS = 4096


class _Place:
    """Where the session is, with the line heads that belong to it; replaced as a whole, so that no lock is needed."""

    __slots__ = ("heads", "mask", "phase", "step")

    def __init__(self, phase: str, step: str, mask: Masker | None) -> None:
        self.phase = phase
        self.step = step
        self.mask = mask
        self.heads: dict[tuple[str, str], str] = {}

    def head(self, level: str, logger: str) -> str:
        text = self.heads.get((level, logger))
        if text is None:
            # Level and phase are this package's own words.
            names: Any = getattr(self.mask, "names", self.mask) or str
            text = head(level, self.phase, names(self.step), names(logger))
            if len(self.heads) >= _HEADS:
                self.heads.clear()
            self.heads[level, logger] = text
        return text


class SessionLog:
    """Collects from :meth:`install` on, in memory until :meth:`open` names the file, then in the file.

    Args:
        level: threshold for all loggers.
        levels: thresholds for single loggers and their children, lower or higher.
        on_lost: called once when the disk takes no more records, with the error.
    """

    def __init__(
        self,
        level: int | str = logging.INFO,
        levels: Mapping[str, int | str] | None = None,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> None:
        self._levels = Levels(level, levels or {})
        self._on_lost = on_lost
        self._place = _Place("", "", None)
        self._stamp = clock(int(time.time()))
        self._clock_watch, self._last_at = ClockWatch(), 0.0
        #: Gets the time at which the log says so, and what happened.
        self.on_clock_change: Callable[[float, ClockChange], None] = lambda at, change: None
        self._lock = RLock()
        self._early: list[tuple[float, str, str, str, str, str]] = []
        self._writer: LogWriter | None = None
        self._failed_records = 0
        #: Records so far of level WARNING, and of ERROR and above.
        self.warnings = self.errors = 0
        self._tap = Tap(self._take, self._levels)

    # -- where records come from -------------------------------------------------------------------------------------

    def install(self) -> None:
        """Begin to take records; logs of sessions within sessions may be nested."""
        self._tap.install()

    def uninstall(self) -> None:
        """Undo :meth:`install`: ``logging`` is as it was."""
        self._tap.uninstall()

    def set_levels(self, level: int | str, levels: Mapping[str, int | str] | None = None) -> None:
        """Use other thresholds from now on, also for the records that wait in memory."""
        self._levels = chosen = Levels(level, levels or {})
        self._tap.use_levels(chosen)
        with self._lock:
            self._early = [entry for entry in self._early if _number(entry[1]) >= chosen.threshold(entry[4])]

    def ensure_attached(self) -> None:
        """Mend what others did to ``logging``; cheap enough for every hook (about 0.2 µs when all is well).

        Enables again what ``dictConfig`` disabled, and takes records again if somebody put another function in the place where
        they are taken.
        """
        self._tap.ensure()

    # -- records -----------------------------------------------------------------------------------------------------

    def _take(self, record: logging.LogRecord) -> None:
        """Log one record of the logging package; raises nothing (but at the recursion limit): the experiment comes first."""
        try:
            name = record.name
            threshold = self._levels.thresholds.get(name)
            if record.levelno < (self._levels.threshold(name) if threshold is None else threshold):
                return
            message = record.getMessage()
            if record.exc_info or record.exc_text or record.stack_info:
                message = _with_traceback(record, message)
            self._put(record.created, record.levelname, name, message, self._place)
        except Exception as error:
            self._take_broken(record, error)

    def _take_broken(self, record: logging.LogRecord, error: Exception) -> None:
        try:
            self._put(time.time(), str(record.levelname), str(record.name), _describe_broken(record, error), self._place)
        except RecursionError:  # the stack is full even for this; as in logging itself, the caller's own frames must end first
            raise
        except Exception:
            self._failed_records += 1

    def write(self, level: int | str, logger: str, message: str, phase: str | None = None, step: str | None = None) -> None:
        """Log a message directly, whatever its level; phase and step are the current ones unless given."""
        name = logging.getLevelName(level) if isinstance(level, int) else level
        self._put(time.time(), name, logger, message, self._at(phase, step))

    def write_output(
        self,
        logger: str,
        lines: Sequence[bytes],
        level: str = "INFO",
        phase: str | None = None,
        step: str | None = None,
    ) -> int:
        """Log raw lines of a child (without newlines), one record each, in one write; return the bytes written.

        0 means that all of them were lost (and counted), or that the file is not open yet and they wait for it.
        """
        if not lines:
            return 0
        place = self._at(phase, step)
        at = time.time()
        if int(at) != self._stamp[0] or at < self._last_at:
            self._look_at_clock(at)
            self._stamp = clock(int(at))
        self._last_at = at
        writer = self._writer
        if writer is None:
            for line in lines:
                self._put(at, level, logger, line.decode("utf-8", "surrogateescape"), place)
            return 0
        data = encode_batch(time_field(at), place.head(level, logger), lines, place.mask)
        return len(data) if writer.write(data, len(lines)) else 0

    def _put(self, at: float, level: str, logger: str, message: str, place: _Place) -> None:
        """Hand one formatted record to the file, or to the memory as long as there is none.

        Its cost is what a logging call costs the experiment, hence the shortcut past :func:`record_text`.
        """
        if level != "INFO":
            self._count(level)
        second = int(at)
        stamp = self._stamp
        if stamp[0] != second or at < self._last_at:
            self._look_at_clock(at)
            stamp = self._stamp = clock(second)
        self._last_at = at
        writer = self._writer
        if writer is None:
            with self._lock:
                if self._writer is None:
                    self._early.append((at, level, place.phase, place.step, logger, message))
                    return
                writer, place = self._writer, self._at(place.phase, place.step)
        head_ = place.heads.get((level, logger)) or place.head(level, logger)
        if place.mask is not None:
            message = place.mask(message)
        micro = int((at - second) * 1e6 + 0.5)
        if message.isprintable() and "\\x{" not in message and micro < 1_000_000:
            text = f"{stamp[1]}{micro:06d}{stamp[2]}{head_}{message}\n"
        else:
            text = record_text(time_field(at), head_, message)
        writer.write(text.encode("utf-8"))

    def _look_at_clock(self, at: float) -> None:
        """Say so when the clock was set or the computer slept, before the first record with the new time, which is ``at``.

        Asked in each second that has a record, and when a record is older than the one before.
        """
        change = self._clock_watch.look(self._last_at)
        if change is None:
            return
        at = min(at, time.time())
        text = f"{change.text}: durations and timeouts go by another clock" if change.set_by_s else change.text
        self._last_at = at
        self._put(at, "WARNING", CLOCK_LOGGER, text, self._place)
        self.on_clock_change(at, change)

    def _count(self, level: str) -> None:
        if level == "WARNING":
            self.warnings += 1
        elif level in ("ERROR", "CRITICAL"):
            self.errors += 1

    def masked(self, text: str) -> str:
        """Return a text as it would stand in the file."""
        mask = self._place.mask
        return mask(text) if mask is not None else text

    # -- place and file ----------------------------------------------------------------------------------------------

    def set_place(self, phase: str | None, step: str | None) -> None:
        """Say which phase and step the records from now on belong to."""
        self._place = _Place(str(phase or ""), str(step or ""), self._place.mask)

    def _at(self, phase: str | None, step: str | None) -> _Place:
        place = self._place
        if phase is None and step is None:
            return place
        phase = place.phase if phase is None else str(phase)
        step = place.step if step is None else str(step)
        return place if (phase, step) == (place.phase, place.step) else _Place(phase, step, place.mask)

    def open(
        self,
        path: str | os.PathLike[str],
        masker: Masker | None = None,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> None:
        """Write what came so far to the file, and everything else as it comes; ``masker`` hides the known secrets.

        Raises:
            OSError: the file cannot be opened; records stay in memory.
        """
        with self._lock:
            writer = LogWriter(path, on_lost or self._on_lost)
            self._place = _Place(self._place.phase, self._place.step, masker or None)
            early, self._early = self._early, []
            for start in range(0, len(early), 1000):
                part = early[start : start + 1000]
                writer.write("".join(map(self._early_text, part)).encode("utf-8"), len(part))
            self._writer = writer

    def _early_text(self, entry: tuple[float, str, str, str, str, str]) -> str:
        at, level, phase, step, logger, message = entry
        place = self._at(phase, step)
        return record_text(time_field(at), place.head(level, logger), place.mask(message) if place.mask else message)

    @property
    def path(self) -> Path | None:
        """The file, once :meth:`open` has named it."""
        return self._writer.path if self._writer else None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._writer.size if self._writer else 0

    @property
    def lost_records(self) -> int:
        """Records that did not reach the file."""
        return self._failed_records + (self._writer.lost_records if self._writer else 0)

    @property
    def first_error(self) -> OSError | None:
        """Why the first record was lost."""
        return self._writer.first_error if self._writer else None

    def close(self) -> None:
        """Close the file, on the disk; records that come later are dropped."""
        if self._writer is not None:
            self._writer.close()


def _number(level_name: str) -> int:
    number = logging.getLevelName(level_name)
    return number if isinstance(number, int) else logging.CRITICAL


def _with_traceback(record: logging.LogRecord, message: str) -> str:
    """Add exception and stack as :class:`logging.Formatter` does, without leaving ``exc_text`` for other formatters."""
    exception = record.exc_text
    if record.exc_info:
        exception = "".join(traceback.format_exception(*record.exc_info)).removesuffix("\n")
    return "\n".join([message, *filter(None, (exception, record.stack_info))])


def _describe_broken(record: logging.LogRecord, error: Exception) -> str:
    """Say all that is known of a record whose formatting failed."""
    msg = record.msg if isinstance(record.msg, str) else f"<{type(record.msg).__qualname__}>"
    args = record.args if isinstance(record.args, tuple) else (record.args,)
    types = ", ".join(type(arg).__qualname__ for arg in args)
    why = traceback.format_exception_only(error)[-1].strip()
    text = (
        f"this record could not be formatted ({why}): message {msg!r}, argument types ({types}), "
        f"from {record.pathname}:{record.lineno} in {record.funcName}"
    )
    with contextlib.suppress(Exception):  # what could not be formatted may be the traceback
        text += "\n" + "".join(traceback.format_exception(error)).removesuffix("\n")
        text = _with_traceback(record, text)
    return text
