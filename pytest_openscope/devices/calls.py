"""Calls that may hang, each in a thread of its own, so that a device can hold up nobody for longer than its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

#: On Windows a signal is handled only between two waits.
_SLICE_S = 0.2


class Guarded:
    """One call in a daemon thread."""

    def __init__(self, name: str, function: Callable[[], Any], late: Callable[[Any], None] | None = None) -> None:
        self._function, self._late = function, late
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
        with self._lock:
            late = self._abandoned
            self._done.set()
        if late and self.error is None and self._late is not None:
            self._late(self.result)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the end; False when the time is up. An interrupt of the waiter leaves the call behind."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not self._done.wait(_SLICE_S if deadline is None else max(0.0, min(_SLICE_S, deadline - time.monotonic()))):
                if deadline is not None and time.monotonic() >= deadline:
                    return not self._leave()
        except BaseException:
            self._leave()
            raise
        return True

    def _leave(self) -> bool:
        """Abandon the call, unless it has just ended; its result then goes to ``late``."""
        with self._lock:
            self._abandoned = not self._done.is_set()
            return self._abandoned


def call_within(name: str, function: Callable[[], Any], timeout_s: float, late: Callable[[Any], None] | None = None) -> Any:
    """Return what ``function`` returns, or raise what it raises.

    Raises:
        TimeoutError: after ``timeout_s``; the thread is left behind, and what it still returns is given to ``late``.
    """
    call = Guarded(name, function, late)
    if not call.wait(timeout_s):
        raise TimeoutError(f"{name} did not return within {timeout_s:g} s")
    if call.error is not None:
        raise call.error
    return call.result
