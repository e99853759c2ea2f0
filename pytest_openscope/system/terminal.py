"""Control sequences of a terminal, whether it obeys them, and a console's habit of standing still while it is clicked on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

if sys.platform == "win32":
    import ctypes
    import msvcrt

#: Gives a terminal its whole height back (no scrolling region), and takes away what stands below the cursor.
RELEASE_TERMINAL = "\x1b7\x1b[r\x1b8\x1b[J"


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether somebody may type into a stream. For Windows' C runtime, and so for ``isatty()``, NUL is a terminal too."""
    try:
        return stream is not None and stream.isatty() and (sys.platform != "win32" or _mode(stream.fileno()) is not None)
    except (ValueError, OSError):
        return False


def obeys_control_sequences(fd: int) -> bool:
    """Tell whether a descriptor is a terminal that obeys them; on Windows this switches them on."""
    try:
        if not os.isatty(fd) or os.environ.get("TERM") in ("dumb", "unknown"):
            return False
    except OSError:
        return False
    if sys.platform != "win32":
        return True
    virtual_terminal = 0x0004
    mode = _mode(fd)
    return mode is not None and bool(mode & virtual_terminal or _set_mode(fd, mode | virtual_terminal))


def switch_off_selection() -> Callable[[], None]:
    """Let a click into a Windows console select nothing; return what undoes that.

    A console stands still as long as text in it is selected, and whoever writes to it waits: with QuickEdit, which is the rule,
    one click on the window holds up a session at its next line. Windows Terminal has no such habit, and is not changed.
    Source: Microsoft, "SetConsoleMode" (ENABLE_QUICK_EDIT_MODE).
    """
    quick_edit, extended = 0x0040, 0x0080
    with _console_input() as fd:
        mode = _mode(fd)
        if mode is None or not mode & quick_edit or not _set_mode(fd, mode & ~quick_edit | extended):
            return lambda: None

    def undo() -> None:
        with _console_input() as fd:
            _set_mode(fd, mode | extended)

    return undo


@contextlib.contextmanager
def _console_input() -> Iterator[int]:
    """Open the console's input itself, since pytest's capture has taken stdin away; -1 where this process has no console."""
    try:
        fd = os.open("CONIN$", os.O_RDWR) if sys.platform == "win32" else -1
    except OSError:
        fd = -1
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _mode(fd: int) -> int | None:
    """Return the mode of a console's end; None for anything else, and on other systems."""
    if sys.platform == "win32" and fd >= 0:
        mode = ctypes.c_ulong()
        if ctypes.windll.kernel32.GetConsoleMode(ctypes.c_void_p(msvcrt.get_osfhandle(fd)), ctypes.byref(mode)):
            return mode.value
    return None


def _set_mode(fd: int, mode: int) -> bool:
    if sys.platform == "win32" and fd >= 0:
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
        return bool(ctypes.windll.kernel32.SetConsoleMode(handle, ctypes.c_ulong(mode)))
    return False
