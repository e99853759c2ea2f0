"""Signals and timeouts: what may interrupt a step, and when.

A step can be interrupted while its setup or its body runs (the *window*). Between windows (teardown, pytest's own code) a
signal is only noted, since pytest drops a node's remaining finalizers when an interrupt lands in one of them. The exception
raised is exactly ``KeyboardInterrupt``: ``subprocess`` and ``asyncio`` treat its subclasses differently.

What an interrupt does and writes at once is ``_on_interrupt`` of :mod:`.session`; the failure is recorded by :mod:`.steps`,
between steps by :mod:`.pytest_session`; the states are written by :mod:`.ending`.

A deadline that passes in a teardown interrupts the one finalizer that runs, by an exception that pytest collects: the other
finalizers run, each with time of its own.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.fixtures import FixtureDef
from _pytest.runner import SetupState

from ..system import ConsoleClose, Waker, awake_s, interrupt_main, on_fork

if TYPE_CHECKING:
    from _pytest.outcomes import Failed
else:
    Failed = pytest.fail.Exception


class StepInterrupted(Failed):
    """A step was ended by the operator or the system; reported like a failure, so that its teardown runs."""


class StepTimedOut(Failed):
    """A step took longer than it may."""


class StepExited(Failed):
    """A step called ``pytest.exit``; the session ends after post-acquisition."""


_NAMES = {"SIGINT": "Ctrl-C", "SIGBREAK": "Ctrl-Break", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP (terminal closed)"}
#: A timeout whose exception was swallowed (in a ``__del__``, by a bare ``except``) is raised again after this time.
REPEAT_S = 1.0
#: In a finalizer only after this time: what it does in its own ``finally`` may be what makes the hardware safe.
REPEAT_IN_TEARDOWN_S = 5.0
#: How often the watchdog looks whether an interrupted finalizer has come back.
_LOOK_S = 0.2
#: pytest's functions that run finalizers.
_RUNNERS = (FixtureDef.finish.__code__, SetupState.teardown_exact.__code__)
#: A closing terminal sends SIGHUP twice, a service manager SIGTERM and SIGHUP: within this time that is one request.
SAME_REQUEST_S = 5.0
#: The function below ``signal.getsignal``, which first fails to make an enum of every handler written in Python: asked before
#: each step, that took longer than the step's lines in the log.
_handler_of: Callable[[int], Any] = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)
#: Once the session has ended, signals do nothing for so long; pytest itself needs no more than that to leave.
_DEAF_S = 2.0
#: The deadline of the whole session, among those of its steps.
SESSION = "session"


class Interrupts:
    """Owns the signal handlers of a session.

    ``on_interrupt(count, name)`` is called for each signal, in the main thread, and must neither wait nor raise;
    ``overdue()`` names the deadline that has passed, if any.
    """

    def __init__(self, on_interrupt: Callable[[int, str], None], overdue: Callable[[], str] = str) -> None:
        self._on_interrupt = on_interrupt
        self._overdue = overdue
        self._saved: dict[int, Any] = {}
        self._mine: dict[int, Callable[[int, FrameType | None], None]] = {}
        self._window = False
        self._raise_at_once = True
        self._timeout: str = ""
        self._tearing_down = False
        self._finalizer: FrameType | None = None
        self._raised_at = 0.0
        self._asked_at = 0.0
        self._over_at: float | None = None
        self._requested = ""
        self.count = 0
        self.cause = ""
        self.console = ConsoleClose(on_break=lambda: self.request(_NAMES["SIGBREAK"]))
        self._heard_at = 0.0
        self._waker: Waker | None = None

    def install(self) -> None:
        """Take the handlers; does nothing outside the main thread, where Python allows none."""
        if threading.current_thread() is not threading.main_thread():
            return
        names = ["SIGINT", "SIGTERM", "SIGBREAK"] if sys.platform == "win32" else ["SIGINT", "SIGTERM", "SIGHUP"]
        for name in names:
            self._mine[getattr(signal, name)] = self._handle
        if sys.platform != "win32":
            self._mine[signal.SIGUSR1] = self._handle_timeout
            if signal.getsignal(signal.SIGURG) is signal.SIG_DFL:
                self._mine[signal.SIGURG] = _wake
        for number, handler in self._mine.items():
            self._saved[number] = signal.signal(number, handler)
        if sys.platform != "win32":
            self._waker = Waker([getattr(signal, name) for name in names], lambda: self._heard_at)
            self._waker.start()
        on_fork(self, Interrupts.restore)
        self.console.install()

    def retake(self) -> list[str]:
        """Take back what a step or a library gave another handler; return the names of those signals."""
        taken = []
        for number, mine in self._mine.items():
            if _handler_of(number) is not mine:
                signal.signal(number, mine)
                taken.append(signal.Signals(number).name)
        return taken

    def over(self) -> None:
        """The session has ended: what comes now may neither cut pytest's last words short nor change its exit code."""
        self._over_at = time.monotonic()
        self.console.over()
        # A KeyboardInterrupt that passed through exec() of a text (a dataclass being made) is noted by CPython, which then ends
        # itself by SIGINT at its exit, though it was caught; the next exec() of a text takes the note away.
        exec("")
        # When Python leaves it gives SIGINT back to the system, which would end it by that signal.
        atexit.register(_ignore_ctrl_c)

    def restore(self) -> None:
        """Give back the handlers that were there before, and let a closing console close.

        After the session Python's own handler stays away: this one does the same, once pytest has had time to leave.
        """
        if self._waker is not None:
            self._waker.stop()
        for number, handler in self._saved.items():
            if handler is not None and not (handler is signal.default_int_handler and self._over_at is not None):
                signal.signal(number, handler)
        self._saved.clear()
        self._mine.clear()
        self.console.over()

    def hold(self) -> None:
        """From here on a signal outside of a window is only noted: a session half opened or between its steps could not end.

        Before (collection) an interrupt ends the run at once, as pytest's own does.
        """
        self._raise_at_once = False

    def release(self) -> None:
        """Let signals through again; raises ``KeyboardInterrupt`` where one came meanwhile."""
        self._raise_at_once = True
        if self.count:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        self._heard_at = time.monotonic()
        if self._timeout and sys.platform == "win32" and not self.console.cause:
            self._handle_timeout(number, frame)
            return
        if self._over_at is not None:
            if time.monotonic() - self._over_at > _DEAF_S:
                raise KeyboardInterrupt
            return
        name = signal.Signals(number).name
        before, self._asked_at = self._asked_at, time.monotonic()
        if not self.count or name in ("SIGINT", "SIGBREAK") or self._asked_at - before > SAME_REQUEST_S:
            self.count += 1
        requested, self._requested = self._requested, ""
        cause = self.console.cause or requested or _NAMES.get(name, name)
        self.cause = self.cause or cause
        self._on_interrupt(self.count, cause)
        if self._window or self._raise_at_once:
            self._window = False
            raise KeyboardInterrupt

    def _handle_timeout(self, number: int, frame: FrameType | None) -> None:
        if not self._timeout:
            return
        if self._window:
            raise KeyboardInterrupt
        if self._tearing_down and self._finalizer is not None and _finalizer_of(frame) is self._finalizer:
            raise StepTimedOut(self._timeout, pytrace=True)

    def request(self, cause: str) -> bool:
        """Interrupt the session as Ctrl-C does, from any thread, for another reason; False where Ctrl-C would do nothing."""
        if signal.SIGINT not in self._mine:
            return False
        self._requested = cause
        _interrupt_main_thread("SIGINT")
        return True

    def time_out(self, message: str, spare_teardown: bool = False) -> bool:
        """Interrupt what runs in the main thread; called by the watchdog's thread until the deadline is cancelled.

        True when a teardown was spared, or a finalizer that was interrupted has come back: what runs now has time anew.
        """
        if self._tearing_down and spare_teardown:
            return True
        self._timeout = message
        now, repeat_s = time.monotonic(), REPEAT_S
        if self._tearing_down:
            running = _finalizer_of(sys._current_frames().get(threading.main_thread().ident or 0))
            if self._finalizer is not None and running is not self._finalizer:
                self._finalizer, self._timeout = None, ""
                return True
            if self._finalizer is None:
                self._finalizer, self._raised_at = running, 0.0
            repeat_s = REPEAT_IN_TEARDOWN_S
            if running is None:
                return False
        elif not self._window:
            return False
        if now - self._raised_at < repeat_s:
            return False
        self._raised_at = now
        if self._mine:
            _interrupt_main_thread("SIGUSR1")
        return False

    def clear_timeout(self) -> None:
        """Forget a timeout that came too late for its step."""
        self._timeout = ""

    @contextmanager
    def teardown(self) -> Iterator[None]:
        """The time in which finalizers run: only a deadline interrupts one, and only that one."""
        self._tearing_down = True
        try:
            yield
        finally:
            self._tearing_down = False
            self._finalizer, self._timeout = None, ""

    def window(self) -> AbstractContextManager[None]:
        """The time in which a step may be interrupted; turns the interrupt into a failure of the step."""
        return self

    def __enter__(self) -> None:
        self._raised_at = 0.0
        self._window = True

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the window; raises what the step's report shall show for an interrupt.

        A step that swallowed the interruption of its timeout has timed out all the same.
        """
        self._window = False
        if isinstance(error, KeyboardInterrupt):
            self._convert(error)
        elif isinstance(error, pytest.exit.Exception):
            raise StepExited(f"pytest.exit: {error.msg}") from error
        elif message := self._timeout or self._overdue():
            self._timeout = ""
            raise StepTimedOut(message, pytrace=True) from error

    def _convert(self, error: KeyboardInterrupt) -> None:
        """Raise the step's failure in place of an interrupt; it shows where the step was, and nothing of how it came here."""
        if self._timeout:
            message, self._timeout = self._timeout, ""
            raise StepTimedOut(message, pytrace=True).with_traceback(error.__traceback__) from error.__cause__
        if self.count == 0:
            self.count = 1
            self.cause = "KeyboardInterrupt"
            self._on_interrupt(1, self.cause)
        text = f"interrupted by {self.cause}"
        raise StepInterrupted(text, pytrace=True).with_traceback(error.__traceback__) from error.__cause__


def _wake(number: int, frame: FrameType | None) -> None:
    """Handle the signal by which the main thread's system call was interrupted: the other handlers run with this one."""


def _interrupt_main_thread(name: str) -> None:
    """Send the main thread a signal; on Windows, which has no other, that of Ctrl-C."""
    if sys.platform == "win32":
        interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, getattr(signal, name))


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _finalizer_of(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the finalizer that is being run; None between finalizers and outside of them."""
    while frame is not None and frame.f_back is not None:
        if frame.f_code in _RUNNERS:
            return None
        if frame.f_back.f_code in _RUNNERS:
            return frame
        frame = frame.f_back
    return None


@dataclass(eq=False)
class _Deadline:
    at: float
    length_s: float
    message: str
    #: It is a teardown's own.
    for_teardown: bool
    #: It has passed, and was told of.
    expired: bool = False
    #: It has passed and was obeyed: what follows has time anew.
    obeyed: bool = False


class Watchdog:
    """One thread that watches the deadlines of the running step and of the session.

    ``on_expire(what)`` runs in that thread, once per deadline; ``interrupt(message, spare_teardown)`` is repeated until the
    deadline is cancelled, or until it says that it was obeyed: then what follows gets time anew.
    ``announce(kill_at, what)`` tells the sidecar when to end this process if the step does not come back.
    The time that the computer sleeps counts for no deadline.
    """

    def __init__(
        self,
        interrupt: Callable[[str, bool], bool],
        on_expire: Callable[[str], None],
        announce: Callable[[float | None, str], None],
        grace_s: float,
    ) -> None:
        self._interrupt = interrupt
        self._on_expire = on_expire
        self._announce = announce
        self._grace_s = grace_s
        self._deadlines: dict[str, _Deadline] = {}
        self._paused_at: float | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def arm(self, key: str, timeout_s: float, message: str, for_teardown: bool = False) -> None:
        """Start or replace the deadline ``key``, ``timeout_s`` seconds from now; ``for_teardown``: it is a teardown's own."""
        with self._wake:
            self._deadlines[key] = _Deadline(awake_s() + timeout_s, timeout_s, message, for_teardown)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="openscope-watchdog", daemon=True)
                self._thread.start()
            self._wake.notify()
        self._tell()

    @contextmanager
    def limited(self, key: str, timeout_s: float, message: str) -> Iterator[None]:
        """Have a deadline for a while."""
        self.arm(key, timeout_s, message)
        try:
            yield
        finally:
            self.cancel(key)

    def cancel(self, key: str) -> None:
        """Drop a deadline; unknown keys are ignored, since pytest-timeout cancels twice."""
        with self._wake:
            known = self._deadlines.pop(key, None)
        if known:
            self._tell()

    def extend(self, key: str) -> None:
        """Begin a deadline anew that has passed and was obeyed; :meth:`expired` goes on to tell of it.

        What follows, a teardown that makes the hardware safe, gets ``grace_s``, or the longer limit of the running step.
        """
        with self._wake:
            deadline = self._deadlines.get(key)
            if deadline is None or not self._has_passed(deadline):
                return
            self._begin_anew(deadline)
            self._wake.notify()
        self._tell()

    def _begin_anew(self, deadline: _Deadline) -> None:
        limits_s = [one.length_s for key, one in self._deadlines.items() if key != SESSION]
        deadline.at = awake_s() + max(self._grace_s, *limits_s, 0.0)
        deadline.obeyed = deadline.for_teardown = True
        deadline.expired = False

    def is_armed(self, key: str) -> bool:
        return key in self._deadlines

    def expired(self, key: str) -> str:
        """Return the message of a deadline that has passed and was not cancelled since, else an empty text.

        What this thread has not come to mark yet (a C call held the GIL) counts as :meth:`overdue` counts it.
        """
        with self._wake:
            deadline = self._deadlines.get(key)
            return deadline.message if deadline is not None and self._has_passed(deadline) else ""

    def _has_passed(self, deadline: _Deadline) -> bool:
        return deadline.obeyed or deadline.expired or (self._paused_at is None and deadline.at <= awake_s())

    def overdue(self) -> str:
        """Return the message of a deadline that has passed, also where this thread could not act (a C call held the GIL)."""
        with self._wake:
            due = self._due()
        return min(due, key=_when).message if due else ""

    def _due(self) -> list[_Deadline]:
        now = awake_s()
        return [] if self._paused_at is not None else [one for one in self._deadlines.values() if one.at <= now]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clocks while an operator is asked."""
        outer = self._paused_at is None
        if outer:
            self._paused_at = awake_s()
            self._tell()
        try:
            yield
        finally:
            if outer:
                with self._wake:
                    waited = awake_s() - (self._paused_at or 0.0)
                    for deadline in self._deadlines.values():
                        deadline.at += waited
                    self._paused_at = None
                    self._wake.notify()
                self._tell()

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._deadlines.clear()
            self._wake.notify()

    def _tell(self) -> None:
        if self._paused_at is None and self._deadlines:
            first = min(self._deadlines.values(), key=_when)
            self._announce(first.at + self._grace_s, first.message)
        else:
            self._announce(None, "")

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopped:
                    return
                due = self._due()
                if not due:
                    later = [one.at - awake_s() for one in self._deadlines.values()] if self._paused_at is None else []
                    self._wake.wait(min(later, default=None))
                    continue
                fresh = [one for one in due if not one.expired]
                for one in fresh:
                    one.expired = True
            for one in fresh:
                self._on_expire(one.message)
            with self._wake:
                # Under the lock: once cancel() has returned, nothing of that deadline comes any more.
                left = [one for one in due if one in self._deadlines.values()]
                obeyed = bool(left) and self._interrupt(left[0].message, not left[0].for_teardown)
                if obeyed:
                    for one in left:
                        self._begin_anew(one)
                self._wake.wait(0 if obeyed else _LOOK_S)
            if obeyed:
                self._tell()


def _when(deadline: _Deadline) -> float:
    return deadline.at
