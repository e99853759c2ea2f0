"""Job objects, Windows' way to know every process of a tree, and CTRL_BREAK, its gentlest way to end one."""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
from collections.abc import Iterable

import psutil

_MAX_PIDS = 4096

if sys.platform == "win32":
    import _winapi
    import ctypes
    from ctypes import wintypes

    _PROCESS_SET_QUOTA_AND_TERMINATE = 0x0100 | 0x0001
    _BASIC_ACCOUNTING = 1
    _BASIC_PROCESS_ID_LIST = 3
    _CTRL_BREAK_EVENT = 1
    _CLASSES_OF_CONSOLES = ("ConsoleWindowClass", "WineConsoleClass")
    _consoles = threading.Lock()
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel32.QueryInformationJobObject.argtypes = [
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.DWORD,
        ctypes.c_void_p,
    ]
    _kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel32.IsProcessInJob.argtypes = [wintypes.HANDLE, wintypes.HANDLE, ctypes.c_void_p]
    _kernel32.GetConsoleWindow.restype = ctypes.c_void_p

    class _ProcessIdList(ctypes.Structure):
        _fields_ = (("assigned", wintypes.DWORD), ("listed", wintypes.DWORD), ("pids", ctypes.c_size_t * _MAX_PIDS))

    class _Accounting(ctypes.Structure):
        _fields_ = (
            ("user_100ns", ctypes.c_int64),
            ("kernel_100ns", ctypes.c_int64),
            ("of_period_100ns", ctypes.c_int64 * 2),
            ("page_faults_and_processes", wintypes.DWORD * 4),
        )

    def _query(job: int, kind: int, found: ctypes.Structure) -> bool:
        """Fill a structure with what Windows knows of a job; False where it refuses."""
        return bool(_kernel32.QueryInformationJobObject(job, kind, ctypes.byref(found), ctypes.sizeof(found), None))


class Job:
    """A job object around one process and all that it starts from now on; empty on other systems.

    It does not kill its processes when its last handle closes: with ``on_crash: leave`` an acquisition outlives the session.
    Children that the process starts before :meth:`add` are outside; the mark in their environment finds them.
    """

    def __init__(self) -> None:
        self._handle: int | None = None

    def add(self, pid: int) -> None:
        """Put the process into a new job, where Windows lets us."""
        if sys.platform == "win32":
            self._handle = _kernel32.CreateJobObjectW(None, None)
            process = _winapi.OpenProcess(_PROCESS_SET_QUOTA_AND_TERMINATE, False, pid)
            added = _kernel32.AssignProcessToJobObject(self._handle, process)
            _winapi.CloseHandle(process)
            if not added:
                self.close()

    def pids(self) -> Iterable[int]:
        """Return the processes that are in the job now."""
        if sys.platform == "win32" and self._handle is not None:
            found = _ProcessIdList()
            _query(self._handle, _BASIC_PROCESS_ID_LIST, found)
            return list(found.pids[: min(found.listed, _MAX_PIDS)])
        return ()

    def cpu_s(self) -> float | None:
        """Return user and system time of all processes that were ever in the job; None where there is no job."""
        if sys.platform == "win32" and self._handle is not None:
            found = _Accounting()
            if _query(self._handle, _BASIC_ACCOUNTING, found):
                return float((found.user_100ns + found.kernel_100ns) / 1e7)
        return None

    def close(self) -> None:
        """Let go of the job; its processes run on."""
        handle, self._handle = self._handle, None
        if sys.platform == "win32" and handle is not None:
            _winapi.CloseHandle(handle)


def in_a_job() -> bool:
    """Tell whether this process is in a job of whoever started it; never on other systems."""
    if sys.platform == "win32":
        inside = wintypes.BOOL()
        told = _kernel32.IsProcessInJob(_kernel32.GetCurrentProcess(), None, ctypes.byref(inside))
        return bool(told and inside.value)
    return False


def window_titles(pid: int) -> list[str]:
    """Return the titles of the visible windows of a process and its descendants, consoles apart; empty on other systems."""
    titles: list[str] = []
    if sys.platform == "win32":
        pids = {pid}
        with contextlib.suppress(psutil.Error, OSError):
            pids.update(child.pid for child in psutil.Process(pid).children(recursive=True))
        user32 = ctypes.WinDLL("user32", use_last_error=True)

        def look(window: int, _: int) -> bool:
            owner = wintypes.DWORD()
            user32.GetWindowThreadProcessId(wintypes.HWND(window), ctypes.byref(owner))
            if owner.value in pids and user32.IsWindowVisible(wintypes.HWND(window)):
                text = ctypes.create_unicode_buffer(512)
                user32.GetClassNameW(wintypes.HWND(window), text, len(text))
                if text.value in _CLASSES_OF_CONSOLES:
                    return True
                user32.GetWindowTextW(wintypes.HWND(window), text, len(text))
                if text.value.strip():
                    titles.append(text.value.strip())
            return True

        prototype = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.HWND, wintypes.LPARAM)
        user32.EnumWindows(prototype(look), 0)
    return titles


def send_break(pid: int) -> None:
    """Send CTRL_BREAK to the process group that ``pid`` leads, from its own console or by a visit to it.

    Not by ``os.kill``, which goes on to TerminateProcess without a common console (bpo-14484), and only to members of the
    console: an event for any other pid upsets it (github.com/microsoft/terminal/issues/335).
    A process with a window of its own is left in its console; one without (the sidecar) gives its own up for the visit.

    Raises:
        OSError: the process has no console (a program with windows), or one that cannot be reached from here.
    """
    if sys.platform == "win32":
        with _consoles:
            room = (wintypes.DWORD * _MAX_PIDS)()
            members = room[: min(_kernel32.GetConsoleProcessList(room, _MAX_PIDS), _MAX_PIDS)]
            window = _kernel32.GetConsoleWindow()
            if pid in members or (window and not members):
                _generate(pid)
                return
            if window:
                raise OSError(errno.ESRCH, "it does not share this console, so no CTRL_BREAK reaches it")
            _kernel32.FreeConsole()
            if not _kernel32.AttachConsole(pid):
                raise ctypes.WinError(ctypes.get_last_error())
            try:
                _generate(pid)
            finally:
                _kernel32.FreeConsole()
    else:
        raise OSError(errno.ENOTSUP, "there is no CTRL_BREAK on this system")


def _generate(pid: int) -> None:
    if sys.platform == "win32" and not _kernel32.GenerateConsoleCtrlEvent(_CTRL_BREAK_EVENT, pid):
        raise ctypes.WinError(ctypes.get_last_error())
