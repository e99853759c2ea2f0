"""Signals and interrupts: Ctrl-C from any thread, a console that closes, forks, waits that an interrupt can end."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any

from .files import keep_apart

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

_CTRL_BREAK_EVENT = 1
#: No console event, but the same: a window of ours is asked to close.
CLOSE_REQUEST = 16
CAUSES = {
    2: "the console was closed",
    5: "log-off",
    6: "shutdown",
    CLOSE_REQUEST: "asked to close (taskkill, a scheduled task)",
}
#: How long a handler may take to run until its thread is interrupted, and again.
_MOMENTS_S = (0.1, 0.4, 1.5)
#: Longer than any time that Windows gives.
_HOLD_S = 60.0
#: Locks cannot be interrupted on Windows before Python 3.14, so a wait there is made of slices.
_SLICE_S = 0.1 if sys.platform == "win32" else 0.5


def interrupt_main(number: int = int(signal.SIGINT)) -> None:
    """Let the main thread run its handler of SIGINT, from any thread.

    On Windows a main thread that sleeps waits for the event that the C handler of SIGINT sets, which
    ``_thread.interrupt_main`` does not do: the signal must be raised. Without a handler raising it would end the process.
    """
    if sys.platform == "win32":
        if callable(signal.getsignal(number)):
            signal.raise_signal(number)
    else:
        _thread.interrupt_main(signal.Signals(number))


class ConsoleClose:
    """Holds the console open until :meth:`over`; ``cause`` says what is being closed, "" while nothing is.

    Windows ends the process when the handler of such an event returns. So a handler of ours passes the event on as one Ctrl-C,
    and returns only when the session has ended; what is not done after the time that Windows gives (five seconds for a closed
    window) the sidecar finishes, which has no console. Windows sends log-off and shutdown here only to processes without
    ``user32.dll``; others hear of them by a window (:mod:`.desktop`).
    CTRL_BREAK comes here as well, since the SIGBREAK that becomes of it does not wake a main thread that sleeps; ``on_break``
    passes it on, and says whether it did.
    Source: Microsoft, "HandlerRoutine callback function" and "SetConsoleCtrlHandler"; CPython, ``signal_handler``.
    """

    def __init__(
        self, interrupt_main: Callable[[int], None] = interrupt_main, on_break: Callable[[], bool] = lambda: False
    ) -> None:
        self.cause = ""
        self._on_break = on_break
        self._interrupt_main = interrupt_main
        self._over = threading.Event()
        self._routine: object = None

    def install(self) -> None:
        """Ask Windows for its console events; does nothing elsewhere."""
        if sys.platform == "win32":
            routine = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(self.handle)
            if ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(routine, True):
                # Windows calls it until it is taken back: it must not be collected.
                self._routine = routine

    def handle(self, event: int) -> bool:
        """Answer one console event, in the thread that Windows starts for it; False leaves it to others."""
        if event == _CTRL_BREAK_EVENT:
            return self._on_break()
        if event not in CAUSES:
            return False
        self.cause = CAUSES[event]
        # As SIGINT, since that alone wakes a main thread that sleeps.
        self._interrupt_main(signal.SIGINT)
        self._over.wait(_HOLD_S)
        return True

    def over(self) -> None:
        """The session has ended: let the console close."""
        self._over.set()
        routine, self._routine = self._routine, None
        if sys.platform == "win32" and routine is not None:
            ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(routine, False)


class Waker:
    """Lets the main thread run the handler of a signal at once that its system call did not notice.

    A signal that comes just before a sleep of the main thread has begun, or that the system gives to another thread, is heard
    only when the sleep is over: a Ctrl-C could wait for an hour. The C handler also writes a byte (``signal.set_wakeup_fd``). A
    thread reads it and, where no handler has run a moment later, interrupts the main thread's system call by ``SIGURG``, which
    is ignored where it has no handler. On Windows a sleep waits for an event that the C handler sets.

    Args:
        numbers: the signals that must be heard.
        heard_at: when, by ``time.monotonic``, a handler of theirs ran last.
    """

    def __init__(self, numbers: Collection[int], heard_at: Callable[[], float]) -> None:
        self._numbers = frozenset(numbers)
        self._heard_at = heard_at
        self._before: int | None = None
        self._fds: tuple[int, int] = (-1, -1)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; called in the main thread."""
        if sys.platform == "win32":
            return
        read, write = map(keep_apart, os.pipe())
        os.set_blocking(write, False)
        self._fds = read, write
        self._before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, args=(read,), name="openscope-signals", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give back what was there before; called in the main thread, and in a fork, where the listening thread is not."""
        if self._before is None or self._thread is None:
            return
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        self._before = None
        # The thread closes its end when it finds the other one closed.
        orphaned = self._fds if not self._thread.is_alive() else self._fds[1:]
        for fd in orphaned:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _listen(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # A step may close descriptors that are not its own.
            while came := os.read(fd, 64):
                if not self._numbers.isdisjoint(came):
                    self._wake()
            os.close(fd)

    def _wake(self) -> None:
        """Interrupt the main thread until a handler has run."""
        came_at = time.monotonic()
        for moment_s in _MOMENTS_S:
            time.sleep(moment_s)
            if self._heard_at() >= came_at - _MOMENTS_S[0]:
                break
            if sys.platform != "win32":
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)


def on_fork(owner: Any, restore: Callable[[Any], None]) -> None:
    """Call ``restore(owner)`` in every fork from now on, as long as ``owner`` lives; no request to end a fork is lost by it.

    With the session's handlers, the SIGTERM by which a step's pool ends its workers would be a request to end the session, lost
    where it comes before the copy has begun. So signals are held back from just before the fork until the handlers in it are
    those of before. Windows has no forks.
    """
    if sys.platform == "win32":
        return
    living = weakref.ref(owner)
    masks: dict[int, set[int]] = {}
    requests = {signal.SIGTERM, signal.SIGHUP}

    def before() -> None:
        if living() is not None:
            masks[threading.get_ident()] = set(signal.pthread_sigmask(signal.SIG_BLOCK, requests))

    def after() -> None:
        mask = masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_in_child() -> None:
        mine = living()
        if mine is not None:
            restore(mine)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


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
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.is_open:
            slice_s = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
            if slice_s <= 0:
                return False
            if self._lock.acquire(timeout=slice_s):
                self._lock.release()
        return True
