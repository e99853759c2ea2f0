"""Calls that may hang in a device, a share or a server: each is made in a thread of its own, where it can be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .clocks import awake_s

#: On Windows a signal is handled only between two waits.
_SLICE_S = 0.1
#: A call that can be left behind is left behind before the watch acts.
_WATCH_S = 1.0


class Watch(Protocol):
    """Ends this process where a call lets nothing else run, a thread that left it behind included."""

    def arm(self, key: str, timeout_s: float, message: str) -> None:
        """From now on the call ``key`` has this long."""

    def cancel(self, key: str) -> None:
        """The call has ended, or was left behind."""


@contextmanager
def watched(watch: Watch | None, name: str, limit_s: float, grace_s: float = 0.0) -> Iterator[None]:
    """Let the watch know of a call while it lasts: one in C that holds Python's lock is not seen to be late from here."""
    if watch is None:
        yield
        return
    watch.arm(name, limit_s + grace_s, f"timeout: {name} did not return within {limit_s:g} s")
    try:
        yield
    finally:
        watch.cancel(name)


class BoundedCall:
    """One call.

    Args:
        name: for messages and the thread's name.
        function: what is called.
        limit_s: seconds that it may take.
        kept: takes the result in the thread of the call, if it came in time.
        late: takes a result that came too late, when nobody waits any more.
        watch: knows how long the call may take.

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
        kept: Callable[[Any], object] = lambda result: None,
        late: Callable[[Any], object] = lambda result: None,
        watch: Watch | None = None,
    ) -> None:
        self.name, self.limit_s = name, limit_s
        self._function, self._kept, self._late, self._watch = function, kept, late, watch
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._left = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def start(self) -> None:
        """Begin it in a thread of its own."""
        threading.Thread(target=self.make, name=self.name, daemon=True).start()

    def make(self) -> None:
        """Do it in the calling thread."""
        result, error = None, None
        with watched(self._watch, self.name, self.limit_s, _WATCH_S):
            try:
                result = self._function()
            except BaseException as raised:
                error = raised
        with self._lock:
            if not self._left:
                self.result, self.error, self.ended = result, error, True
                if error is None:
                    self._kept(result)
        self._finished.set()
        if self._left and error is None:
            self._late(result)

    def wait(self, limit_s: float) -> None:
        """Wait for its end, and leave it behind when the time is up."""
        due = awake_s() + limit_s
        while not self._finished.wait(max(0.0, min(_SLICE_S, due - awake_s()))):
            if awake_s() >= due and self.leave():
                return

    def leave(self) -> bool:
        """Leave it behind with a ``TimeoutError``; False when it has just ended."""
        with self._lock:
            if not self.ended:
                self._left = True
                if self._watch is not None:
                    self._watch.cancel(self.name)
                self.error = TimeoutError(f"{self.name} did not return within {self.limit_s:g} s")
            return self._left

    def run(self) -> None:
        """Make it in a thread within its limit; an interrupt of the one who waits leaves it behind."""
        try:
            self.start()
            self.wait(self.limit_s)
        except BaseException:
            self.leave()
            raise

    def result_in_time(self) -> Any:
        """Make it in a thread, and return or raise what came of it.

        Raises:
            TimeoutError: its time was up; the thread is left behind.
        """
        self.run()
        if self.error is not None:
            raise self.error
        return self.result
