"""What steps of the tests do to their own process, on every system; :meth:`conftest.Rig.steps` gives it to each of them."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys

__all__ = ["KILL", "hang", "kill_me", "read_null", "signal_me"]

#: For :func:`os.kill`: ends a process at once, which sees nothing of it.
KILL: int = getattr(signal, "SIGKILL", 9)
#: The exit code of a process that was ended so.
KILL_CODE = KILL if sys.platform == "win32" else -KILL

#: And that of an experiment that its sidecar has ended.
BY_SIDECAR = 1 if sys.platform == "win32" else -6
#: By how much longer the limits of time of sessions are, within which an interrupt must have come through: where each session
#: is an interpreter of its own, several start at a time.
PACE = 6 if sys.platform == "win32" else 1


def kill_me() -> None:
    """End this process at once."""
    os.kill(os.getpid(), KILL)


def signal_me(number: int = signal.SIGINT) -> None:
    """Send this process a signal, for which Windows' ``os.kill`` would end it."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)


def hang(seconds: float) -> None:
    """Sleep in a C call that keeps the interpreter's lock."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32").Sleep(round(seconds * 1e3))
    else:
        ctypes.PyDLL(None).usleep(round(seconds * 1e6))


def read_null() -> None:
    """Read from address 0, of which ctypes makes an exception on Windows."""
    if sys.platform == "win32":
        faulthandler._read_null()
    else:
        ctypes.string_at(0)
