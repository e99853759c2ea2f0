"""Calls that may hang: made in threads of their own, so that a device can hold up nobody for longer than its time.

One thread makes all the calls of a list for as long as none hangs: on a busy PC each change of thread costs milliseconds, and
a rig has a dozen devices.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

#: On Windows a signal is handled only between two waits.
_SLICE_S = 0.2
#: When a list is worked off side by side, a call that takes longer than this no longer keeps the next one waiting.
_PATIENCE_S = 0.05
#: A call that can be left behind is left behind before the watch acts.
_WATCH_S = 1.0
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
        deadline: ``time.monotonic()`` by which it should end. One that begins later gets a moment all the same: most are quick.
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
        self._left = False
        self.due: float | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def make(self) -> bool:
        """Do it; False when it was left behind on the way."""
        if self._deadline is not None:
            self.limit_s = max(_MOMENT_S, min(self.limit_s, self._deadline - time.monotonic()))
        limit_s = self.limit_s
        self.due = time.monotonic() + limit_s
        result, error = None, None
        if self._watch is not None:
            self._watch.arm(self.name, limit_s + _WATCH_S, f"timeout: {self.name} did not return within {limit_s:g} s")
        try:
            result = self._function()
        except BaseException as raised:
            error = raised
        if self._watch is not None:
            self._watch.cancel(self.name)
        with self._lock:
            left = self._left
            if not left:
                self.result, self.error, self.ended = result, error, True
                if error is None and self._kept is not None:
                    self._kept(result)
        if left and error is None and self._late is not None:
            self._late(result)
        return not left

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


class _Thread:
    """A thread that takes calls from a list that it shares with others."""

    def __init__(self, waiting: list[Call], name: str) -> None:
        self._waiting = waiting
        self.current: Call | None = None
        self.finished = threading.Event()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            while True:
                self.current = call = self._waiting.pop(0)
                if not call.make():
                    # Another thread has taken over the rest.
                    return
        except IndexError:
            return
        finally:
            self.finished.set()


def make_in_turn(calls: Sequence[Call]) -> None:
    """Make the calls one after the other, each within its limit; one that takes longer is left behind with a ``TimeoutError``.

    An interrupt of the one who waits leaves the running call behind, and those after it are not made.
    """
    waiting = list(calls)
    while waiting:
        thread = _Thread(waiting, waiting[0].name)
        try:
            while not thread.finished.wait(_slice_s(thread.current)):
                current = thread.current
                if current is not None and current.due is not None and time.monotonic() >= current.due and current.leave():
                    break
        except BaseException:
            del waiting[:]
            if thread.current is not None:
                thread.current.leave()
            raise


def _slice_s(call: Call | None) -> float:
    due = call.due if call is not None else None
    return _PATIENCE_S if due is None else max(0.0, min(_SLICE_S, due - time.monotonic()))


def make_side_by_side(calls: Sequence[Call], timeout_s: float) -> None:
    """Make the calls within a time for all together: one thread while they are quick, more when one of them takes its time.

    Those that have not ended by then are left behind with a ``TimeoutError``.
    """
    deadline = time.monotonic() + timeout_s
    waiting = list(calls)
    busy: list[_Thread] = []
    while (waiting or busy) and time.monotonic() < deadline:
        if waiting:
            busy.append(_Thread(waiting, "devices"))
        busy[-1].finished.wait(max(0.0, min(_PATIENCE_S, deadline - time.monotonic())))
        busy = [thread for thread in busy if not thread.finished.is_set()]
    del waiting[:]
    for call in calls:
        if not call.ended:
            call.limit_s = timeout_s
            call.leave()
