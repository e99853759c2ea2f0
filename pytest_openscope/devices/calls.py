"""Calls that may hang: each is made in a thread of its own, so that a device can hold up nobody for longer than its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

#: On Windows a signal is handled only between two waits.
_SLICE_S = 0.2
#: A call that can be left behind is left behind before the watch acts.
_WATCH_S = 1.0
#: What a call gets that begins after its deadline: most devices are safe within milliseconds.
_MOMENT_S = 0.25


class Watch(Protocol):
    """Ends this process where a call lets nothing else run, a thread that left it behind included."""

    def arm(self, key: str, timeout_s: float, message: str) -> None:
        """From now on the call ``key`` has this long."""

    def cancel(self, key: str) -> None:
        """The call has ended, or was left behind."""


class Call:
    """One call.

    Args:
        name: for messages and the thread's name.
        function: what is called.
        limit_s: seconds that it may take.
        deadline: ``time.monotonic()`` by which it should end.
        kept: takes the result in the thread of the call, if it came in time.
        late: takes a result that came too late, when nobody waits any more.
        watch: knows how long the call may take; a C call that holds Python's lock keeps its own time from being watched here.

    Attributes:
        result, error: what came of it.
        ended: False when it was left behind, or never begun.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[], Any],
        limit_s: float,
        *,
        deadline: float | None = None,
        kept: Callable[[Any], object] | None = None,
        late: Callable[[Any], object] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.name, self.limit_s, self._function, self._kept, self._late = name, limit_s, function, kept, late
        self._deadline, self._watch = deadline, watch
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._left = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def start(self) -> None:
        """Begin it in a thread of its own; its time runs from now on."""
        if self._deadline is not None:
            self.limit_s = max(_MOMENT_S, min(self.limit_s, self._deadline - time.monotonic()))
        threading.Thread(target=self.make, name=self.name, daemon=True).start()

    def make(self) -> None:
        """Do it in the calling thread."""
        if self._left:
            return
        result, error = None, None
        if self._watch is not None:
            message = f"timeout: {self.name} did not return within {self.limit_s:g} s"
            self._watch.arm(self.name, self.limit_s + _WATCH_S, message)
        try:
            result = self._function()
        except BaseException as raised:
            error = raised
        if self._watch is not None:
            self._watch.cancel(self.name)
        with self._lock:
            if not self._left:
                self.result, self.error, self.ended = result, error, True
                if error is None and self._kept is not None:
                    self._kept(result)
        self._finished.set()
        if self._left and error is None and self._late is not None:
            self._late(result)

    def wait(self, limit_s: float) -> None:
        """Wait for its end, and leave it behind when the time is up."""
        due = time.monotonic() + limit_s
        while not self._finished.wait(max(0.0, min(_SLICE_S, due - time.monotonic()))):
            if time.monotonic() >= due and self.leave():
                return

    def leave(self) -> bool:
        """Leave it behind; False when it has just ended."""
        with self._lock:
            if not self.ended:
                self._left = True
                if self._watch is not None:
                    self._watch.cancel(self.name)
                self.error = TimeoutError(f"{self.name} did not return within {self.limit_s:g} s")
            return self._left

    def result_in_time(self) -> Any:
        """Make it in a thread, and return or raise what came of it.

        Raises:
            TimeoutError: its time was up; the thread is left behind.
        """
        make_in_turn([self])
        if self.error is not None:
            raise self.error
        return self.result


def make_in_turn(calls: Sequence[Call]) -> None:
    """Make the calls one after the other, each within its limit; one that takes longer is left behind with a ``TimeoutError``.

    An interrupt of the one who waits leaves the running call behind, and those after it are not made.
    """
    for call in calls:
        try:
            call.start()
            call.wait(call.limit_s)
        except BaseException:
            call.leave()
            raise


def make_side_by_side(calls: Sequence[Call], timeout_s: float) -> None:
    """Make the calls within a time for all together; those that have not ended by then are left with a ``TimeoutError``."""
    deadline = time.monotonic() + timeout_s
    for call in calls:
        call.limit_s = timeout_s
        call.start()
    for call in calls:
        call.wait(deadline - time.monotonic())
