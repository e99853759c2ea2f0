"""Control sequences of a terminal, and whether it obeys them."""

from __future__ import annotations

import os
import sys

#: Gives a terminal its whole height back (no scrolling region), and takes away what stands below the cursor.
RELEASE_TERMINAL = "\x1b7\x1b[r\x1b8\x1b[J"


def obeys_control_sequences(fd: int) -> bool:
    """Tell whether a descriptor is a terminal that obeys them; on Windows this switches them on."""
    try:
        if not os.isatty(fd) or os.environ.get("TERM") in ("dumb", "unknown"):
            return False
    except OSError:
        return False
    return sys.platform != "win32" or _switch_on(fd)


def _switch_on(fd: int) -> bool:
    if sys.platform != "win32":
        return True
    import ctypes
    import msvcrt

    kernel, mode, virtual_terminal = ctypes.windll.kernel32, ctypes.c_ulong(), 0x0004
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
        return False
    return bool(mode.value & virtual_terminal or kernel.SetConsoleMode(handle, mode.value | virtual_terminal))
