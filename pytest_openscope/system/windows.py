"""Job objects, Windows' way to know every process of a tree, and CTRL_BREAK, its gentlest way to end one."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterable
from typing import Any

_PROCESS_SET_QUOTA_AND_TERMINATE = 0x0100 | 0x0001
_BASIC_ACCOUNTING = 1
_BASIC_PROCESS_ID_LIST = 3
_MAX_PIDS = 4096
_CTRL_BREAK_EVENT = 1
_consoles = threading.Lock()


class Job:
    """A job object around one process and all that it starts from now on.

    It does not kill its processes when its last handle closes: with ``on_crash: leave`` an acquisition outlives the session.
    Children that the process starts before :meth:`add` are outside; the mark in their environment finds them.
    """

    def __init__(self) -> None:
        self._handle: int | None = None

    def add(self, pid: int) -> bool:
        """Put the process into a new job; False where Windows refuses (or this is not Windows)."""
        if sys.platform != "win32":
            return False
        import ctypes
        from ctypes import wintypes

        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.CreateJobObjectW.restype = wintypes.HANDLE
        kernel32.OpenProcess.restype = wintypes.HANDLE
        kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
        kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
        job = kernel32.CreateJobObjectW(None, None)
        process = kernel32.OpenProcess(_PROCESS_SET_QUOTA_AND_TERMINATE, False, pid)
        added = bool(job and process and kernel32.AssignProcessToJobObject(job, process))
        if process:
            kernel32.CloseHandle(process)
        if added:
            self._handle = job
        elif job:
            kernel32.CloseHandle(job)
        return added

    def pids(self) -> Iterable[int]:
        """Return the processes that are in the job now."""
        if sys.platform != "win32" or self._handle is None:
            return ()
        import ctypes
        from ctypes import wintypes

        class ProcessIdList(ctypes.Structure):
            _fields_ = (
                ("assigned", wintypes.DWORD),
                ("listed", wintypes.DWORD),
                ("pids", ctypes.c_size_t * _MAX_PIDS),
            )

        found = ProcessIdList()
        self._query(_BASIC_PROCESS_ID_LIST, found)
        return [int(found.pids[index]) for index in range(min(found.listed, _MAX_PIDS))]

    def cpu_s(self) -> float | None:
        """Return user and system time of all processes that were ever in the job; None where there is no job."""
        if sys.platform != "win32" or self._handle is None:
            return None
        import ctypes
        from ctypes import wintypes

        class Accounting(ctypes.Structure):
            _fields_ = (
                ("user_100ns", ctypes.c_int64),
                ("kernel_100ns", ctypes.c_int64),
                ("period_user_100ns", ctypes.c_int64),
                ("period_kernel_100ns", ctypes.c_int64),
                ("page_faults", wintypes.DWORD),
                ("processes", wintypes.DWORD),
                ("active", wintypes.DWORD),
                ("terminated", wintypes.DWORD),
            )

        found = Accounting()
        known = self._query(_BASIC_ACCOUNTING, found)
        return (found.user_100ns + found.kernel_100ns) / 1e7 if known else None

    def _query(self, kind: int, found: Any) -> bool:
        """Fill a structure with what Windows knows of the job; False where it refuses."""
        if sys.platform != "win32":
            return False
        import ctypes
        from ctypes import wintypes

        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.QueryInformationJobObject.argtypes = [
            wintypes.HANDLE,
            ctypes.c_int,
            ctypes.c_void_p,
            wintypes.DWORD,
            ctypes.c_void_p,
        ]
        return bool(kernel32.QueryInformationJobObject(self._handle, kind, ctypes.byref(found), ctypes.sizeof(found), None))

    def close(self) -> None:
        """Let go of the job; its processes run on."""
        if sys.platform == "win32" and self._handle is not None:
            import ctypes
            from ctypes import wintypes

            kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
            kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
            kernel32.CloseHandle(self._handle)
            self._handle = None


def send_break(pid: int) -> None:
    """Send CTRL_BREAK to the process group that ``pid`` leads, from its own console or by a visit to it.

    Not by ``os.kill``: where the event cannot be delivered (no common console), it goes on to TerminateProcess (bpo-14484).
    And only to members of the console: an event for any other pid upsets it (github.com/microsoft/terminal/issues/335).
    A process with a window of its own is left in its console; one without (the sidecar) gives its own up for the visit.

    Raises:
        OSError: the process has no console (a program with windows), or one that cannot be reached from here.
    """
    if sys.platform != "win32":
        raise OSError(errno.ENOTSUP, "there is no CTRL_BREAK on this system")
    import ctypes

    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.GetConsoleWindow.restype = ctypes.c_void_p
    with _consoles:
        members, window = _console_members(kernel32), kernel32.GetConsoleWindow()
        if pid in members or (window and not members):
            _generate(kernel32, pid)
            return
        if window:
            raise OSError(errno.ESRCH, "it does not share this console, so no CTRL_BREAK reaches it")
        kernel32.FreeConsole()
        if not kernel32.AttachConsole(pid):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            _generate(kernel32, pid)
        finally:
            kernel32.FreeConsole()


def _console_members(kernel32: Any) -> list[int]:
    """Return the processes of this process's console; nothing without one."""
    import ctypes

    room = (ctypes.c_ulong * _MAX_PIDS)()
    count = kernel32.GetConsoleProcessList(room, _MAX_PIDS)
    return [int(room[index]) for index in range(min(count, _MAX_PIDS))]


def _generate(kernel32: Any, pid: int) -> None:
    if sys.platform == "win32" and not kernel32.GenerateConsoleCtrlEvent(_CTRL_BREAK_EVENT, pid):
        import ctypes

        raise ctypes.WinError(ctypes.get_last_error())
