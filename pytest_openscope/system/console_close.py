"""Closing the console, logging off, shutting down: what Windows asks of a console's processes before it ends them.

The C runtime turns these events into ``SIGBREAK`` in a thread of its own, and Windows ends the process when that thread's
handler returns. So a handler of ours answers first, passes the event on as one Ctrl-C, and returns only when the session has
ended; what is not done after the time that Windows gives (five seconds for a closed window) the sidecar finishes, which has no
console. Windows sends log-off and shutdown only to processes without ``user32.dll``; for others the next session recovers.
Source: Microsoft, "HandlerRoutine callback function" and "SetConsoleCtrlHandler".
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable

CAUSES = {2: "the console was closed", 5: "log-off", 6: "shutdown"}
#: Longer than any time that Windows gives.
_HOLD_S = 60.0


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
    """Holds the console open until :meth:`over`; ``cause`` says what is being closed, "" while nothing is."""

    def __init__(self, interrupt_main: Callable[[int], None] = interrupt_main) -> None:
        self.cause = ""
        self._interrupt_main = interrupt_main
        self._over = threading.Event()
        self._routine: object = None

    def install(self) -> None:
        """Ask Windows for its console events; does nothing elsewhere."""
        if sys.platform != "win32":
            return
        import ctypes
        from ctypes import wintypes

        routine = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(self.handle)
        if ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(routine, True):
            # Windows calls it until it is taken back: it must not be collected.
            self._routine = routine

    def handle(self, event: int) -> bool:
        """Answer one console event, in the thread that Windows starts for it; False leaves it to others."""
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
            import ctypes

            ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(routine, False)
