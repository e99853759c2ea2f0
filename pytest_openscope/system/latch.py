"""Waiting for a thread in a way that an interrupt can end and cannot break."""

from __future__ import annotations

import sys
import threading
import time

#: Locks cannot be interrupted on Windows before Python 3.14, so a wait there is made of slices.
_SLICE_S = 0.1 if sys.platform == "win32" else 0.5


class Latch:
    """Opens once. Made of one bare lock, since an interrupt can leave a ``threading.Event`` in disorder."""

    def __init__(self) -> None:
        self.is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everybody pass from now on; called by one thread only."""
        if not self.is_open:
            self.is_open = True
            self._lock.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is open; False when it is still closed after ``timeout_s``."""
        __tracebackhide__ = True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.is_open:
            slice_s = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
            if slice_s <= 0:
                return False
            if self._lock.acquire(timeout=slice_s):
                self._lock.release()
        return True
