"""What a Windows desktop may do to a session that nobody touches for an hour: sleep, restart, log-off, a change of users.

Windows tells these things to windows only: a process that has loaded ``user32.dll`` (Python's ``ctypes`` does) hears nothing of
log-off and shutdown in its console handler. So a session has a hidden window, in a thread of its own.
Other systems have no such thing: where a desktop puts the computer to sleep, start pytest by ``systemd-inhibit`` (Linux) or
``caffeinate -dim`` (macOS).
Sources: Microsoft, "Application Shutdown Changes in Windows Vista", "SetThreadExecutionState", "WM_WTSSESSION_CHANGE".
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from .signals import CAUSES, CLOSE_REQUEST

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

_QUERY_END_SESSION, _END_SESSION, _CLOSE, _DESTROY, _STOP = 0x0011, 0x0016, 0x0010, 0x0002, 0x8000
_POWER, _SESSION_CHANGE = 0x0218, 0x02B1
_LOG_OFF, _CRITICAL = 0x80000000, 0x40000000
#: The numbers that a console handler gets for the same, see ``CAUSES``.
_LOG_OFF_EVENT, _SHUTDOWN_EVENT = 5, 6
_POWER_WORDS = {
    0x0004: "the computer goes to sleep",
    0x0012: "the computer is back from sleep",
    0x000A: "the power supply has changed (mains, battery)",
}
_SESSION_WORDS = {
    0x1: "the desktop is at the computer's own screen again",
    0x2: "the desktop was taken from the computer's own screen (another user, Remote Desktop)",
    0x3: "Remote Desktop was connected",
    0x4: "Remote Desktop was disconnected",
    0x7: "the screen was locked",
    0x8: "the screen was unlocked",
}
#: ES_CONTINUOUS, ES_SYSTEM_REQUIRED, ES_DISPLAY_REQUIRED: a stimulus screen that goes dark has lost the session as well.
_STAY_AWAKE = 0x80000000 | 0x00000001 | 0x00000002
#: Asked first of all, so that no other program is closed before this one has refused; a sidecar goes last of all.
_FIRST, _LAST = 0x3FF, 0x100
_READY_S = 5.0
_LEAVE_S = 2.0
_LONGEST_REASON = 255


class Desktop:
    """Keeps computer and screen awake from :meth:`start` to :meth:`stop`, refuses a shutdown, and tells what happens there.

    A person who shuts down or logs off is shown ``reason`` and may go on with it; then, and where Windows does not ask,
    ``end`` is called. It returns when the session has ended, or never: Windows gives it five seconds. It is called as well when
    this process is asked to close: by ``taskkill`` without ``/F``, by the end of a scheduled task.

    Args:
        tell: gets what happens, in words, in the window's thread.
        end: gets a key of ``CAUSES``.
        reason: why nobody should shut down now; empty to let them.
    """

    def __init__(self, tell: Callable[[str], None], end: Callable[[int], object], reason: str = "") -> None:
        self._tell = tell
        self._end = end
        self._reason = reason[:_LONGEST_REASON]
        self._window: int | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem = ""

    def start(self) -> str:
        """Begin, and say what Windows refuses; does nothing on other systems."""
        if sys.platform == "win32":
            self._thread = threading.Thread(target=self._live, name="openscope-desktop", daemon=True)
            self._thread.start()
            if not self._ready.wait(_READY_S):
                return f"Windows has not answered within {_READY_S:g} s"
        return self.problem

    def stop(self) -> None:
        """Let the computer sleep and shut down again; a second call does nothing."""
        thread, self._thread = self._thread, None
        if sys.platform == "win32" and thread is not None:
            if self._window is not None:
                _user32.PostMessageW(self._window, _STOP, 0, 0)
            thread.join(_LEAVE_S)

    def answer(self, message: int, first: int, second: int) -> int | None:
        """Answer one message of Windows; None leaves it to Windows."""
        if message == _QUERY_END_SESSION:
            what = CAUSES[_event_of(second)]
            if not self._reason or second & _CRITICAL:
                self._tell(f"Windows asks for {what}: agreed")
                return 1
            self._tell(f"Windows asks for {what}: refused, {self._reason}")
            return 0
        if message in (_END_SESSION, _CLOSE):
            if message == _CLOSE or first:
                self._end(CLOSE_REQUEST if message == _CLOSE else _event_of(second))
            return 0
        if message == _POWER and first in _POWER_WORDS:
            self._tell(_POWER_WORDS[first])
            return 1
        if message == _SESSION_CHANGE and first in _SESSION_WORDS:
            self._tell(_SESSION_WORDS[first])
            return 0
        return None

    def _live(self) -> None:
        if sys.platform == "win32":
            # It holds as long as this thread lives, whatever a step asks for in its own.
            if not _kernel32.SetThreadExecutionState(_STAY_AWAKE):
                self.problem = "the computer cannot be kept awake"
            _kernel32.SetProcessShutdownParameters(_FIRST, 0)
            try:
                self._window = _make_window(self._procedure())
            except OSError as error:
                self.problem = f"shutdown and sleep are not noticed: {error}"
                self._ready.set()
                return
            if self._reason:
                _user32.ShutdownBlockReasonCreate(self._window, self._reason)
            _wtsapi32.WTSRegisterSessionNotification(self._window, 0)
            self._ready.set()
            message = wintypes.MSG()
            while _user32.GetMessageW(ctypes.byref(message), None, 0, 0) > 0:
                _user32.DispatchMessageW(ctypes.byref(message))

    if sys.platform == "win32":

        def _procedure(self) -> ctypes._FuncPointer:
            def procedure(window: int, message: int, first: int, second: int) -> int:
                try:
                    answer = self.answer(message, first, second)
                except Exception as error:
                    # Nothing may pass through Windows' own code.
                    self.problem, answer = f"{type(error).__name__}: {error}", None
                if answer is not None:
                    return answer
                if message == _STOP:
                    _user32.DestroyWindow(window)
                    return 0
                if message == _DESTROY:
                    _wtsapi32.WTSUnRegisterSessionNotification(window)
                    _user32.PostQuitMessage(0)
                    return 0
                return int(_user32.DefWindowProcW(window, message, first, second))

            # Windows calls it as long as the window lives: it must not be collected before.
            self._kept = _PROCEDURE(procedure)
            return self._kept


def go_last() -> None:
    """Let Windows end this process last of all at a shutdown; does nothing on other systems."""
    if sys.platform == "win32":
        _kernel32.SetProcessShutdownParameters(_LAST, 0)


def _event_of(second: int) -> int:
    return _LOG_OFF_EVENT if second & _LOG_OFF else _SHUTDOWN_EVENT


if sys.platform == "win32":
    _user32 = ctypes.WinDLL("user32", use_last_error=True)
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _wtsapi32 = ctypes.WinDLL("wtsapi32", use_last_error=True)
    _PROCEDURE = ctypes.WINFUNCTYPE(ctypes.c_ssize_t, wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM)
    _kernel32.SetThreadExecutionState.argtypes = [wintypes.DWORD]
    _kernel32.SetThreadExecutionState.restype = wintypes.DWORD
    _kernel32.SetProcessShutdownParameters.argtypes = [wintypes.DWORD, wintypes.DWORD]
    _kernel32.GetModuleHandleW.argtypes = [wintypes.LPCWSTR]
    _kernel32.GetModuleHandleW.restype = wintypes.HMODULE
    _user32.CreateWindowExW.argtypes = [
        wintypes.DWORD,
        wintypes.LPCWSTR,
        wintypes.LPCWSTR,
        wintypes.DWORD,
        *[ctypes.c_int] * 4,
        *[ctypes.c_void_p] * 4,
    ]
    _user32.CreateWindowExW.restype = wintypes.HWND
    _user32.DefWindowProcW.argtypes = [wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM]
    _user32.DefWindowProcW.restype = ctypes.c_ssize_t
    _user32.DestroyWindow.argtypes = [wintypes.HWND]
    _user32.PostQuitMessage.argtypes = [ctypes.c_int]
    _user32.PostMessageW.argtypes = [wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM]
    _user32.GetMessageW.argtypes = [ctypes.c_void_p, wintypes.HWND, wintypes.UINT, wintypes.UINT]
    _user32.DispatchMessageW.argtypes = [ctypes.c_void_p]
    _user32.DispatchMessageW.restype = ctypes.c_ssize_t
    _user32.ShutdownBlockReasonCreate.argtypes = [wintypes.HWND, wintypes.LPCWSTR]
    _wtsapi32.WTSRegisterSessionNotification.argtypes = [wintypes.HWND, wintypes.DWORD]
    _wtsapi32.WTSUnRegisterSessionNotification.argtypes = [wintypes.HWND]

    class _WindowClass(ctypes.Structure):
        _fields_ = (
            ("style", wintypes.UINT),
            ("procedure", _PROCEDURE),
            ("extra", ctypes.c_int * 2),
            ("module", wintypes.HINSTANCE),
            ("icon", wintypes.HANDLE),
            ("cursor", wintypes.HANDLE),
            ("background", wintypes.HANDLE),
            ("menu", wintypes.LPCWSTR),
            ("name", wintypes.LPCWSTR),
        )

    _user32.RegisterClassW.argtypes = [ctypes.POINTER(_WindowClass)]

    def _make_window(procedure: ctypes._FuncPointer) -> int:
        """Make a window that is never shown; not a message-only one, which hears nothing of a shutdown.

        Raises:
            OSError: there is no desktop, or no room on it.
        """
        name = f"pytest-openscope-{id(procedure)}"
        kind = _WindowClass(procedure=procedure, module=_kernel32.GetModuleHandleW(None), name=name)
        window = None
        if _user32.RegisterClassW(ctypes.byref(kind)):
            window = _user32.CreateWindowExW(0, name, "pytest-openscope", 0, 0, 0, 0, 0, None, None, kind.module, None)
        if not window:
            raise ctypes.WinError(ctypes.get_last_error())
        return int(window)
