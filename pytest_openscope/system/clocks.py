"""The computer's clocks: which stand still while it sleeps, which can be set, and how it is noticed that one was.

The wall clock (``time.time``) is for what people read. It is set by hand, by time servers, by a dying battery, so nothing is
measured with it. ``time.monotonic`` measures durations; while the computer sleeps it stands still on Linux and macOS, and goes
on on Windows. Deadlines use :func:`awake_s`, which stands still there too.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

if sys.platform == "win32":
    import ctypes

#: A larger difference between two looks is no drift; time servers that slew a clock, and smear leap seconds, change less.
JUMP_S = 1.0
_DRIFT = 0.001
#: A clock that runs does not go back at all; below this it may have been read by two threads.
_BACK_S = 0.02
_SLEPT_S = 1.0


def awake_s() -> float:
    """Return seconds since some moment of the past, without those that the computer slept; the same in all processes."""
    if sys.platform == "win32":
        ticks = ctypes.c_ulonglong()
        ctypes.windll.kernel32.QueryUnbiasedInterruptTime(ctypes.byref(ticks))
        # In units of 100 ns.
        return ticks.value / 1e7
    return time.monotonic()


def elapsed_s() -> float:
    """Return seconds since some moment of the past, those included that the computer slept."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        # This clock goes on in sleep, other than Python's monotonic one.
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()


def boot_id() -> str:
    """Return what names the time since the computer was started, however its clock was set meanwhile; "" where nothing does."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return _start_of_windows() if sys.platform == "win32" else ""


def _start_of_windows() -> str:
    """Name the start of the service control manager: it lives as long as Windows does, and its start time stays as written."""
    for pid in psutil.pids():
        # A protected process tells neither, nor does any under Wine, where psutil raises a plain OSError.
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if process.name().lower() == "services.exe":
                return f"services.exe {process.create_time():.6f}"
    return ""


@dataclass(frozen=True)
class ClockChange:
    """The wall clock was set (``set_by_s``, negative when it was set back), or the computer slept (``slept_s``), or both."""

    set_by_s: float = 0.0
    slept_s: float = 0.0

    @property
    def text(self) -> str:
        """What happened, for the log and the summary."""
        parts = [f"the computer slept for {self.slept_s:.1f} s"] if self.slept_s else []
        if self.set_by_s:
            way = "forward" if self.set_by_s > 0 else "back"
            parts.append(f"the computer's clock was set {way} by {abs(self.set_by_s):.3f} s")
        return "; ".join(parts)


class ClockWatch:
    """Tells each jump of the wall clock once, and each sleep of the computer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wall, self._elapsed, self._awake = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.time(), elapsed_s(), awake_s()

    def look(self, newest: float = 0.0) -> ClockChange | None:
        """Return what happened since the last look; None when the clock ran on.

        A clock that is behind ``newest``, a time that was told before, was set back, however little.
        """
        with self._lock:
            wall, elapsed, awake = self._now()
            passed_s = elapsed - self._elapsed
            set_by_s = wall - self._wall - passed_s
            slept_s = passed_s - (awake - self._awake)
            limit_s = _BACK_S if wall < max(self._wall, newest) else JUMP_S + _DRIFT * passed_s
            self._wall, self._elapsed, self._awake = wall, elapsed, awake
        change = ClockChange(
            round(set_by_s, 3) if abs(set_by_s) > limit_s else 0.0, round(slept_s, 1) if slept_s > _SLEPT_S else 0.0
        )
        return change if change != ClockChange() else None
