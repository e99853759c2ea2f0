"""Other processes: known by pid *and* start time, watched without their help, and ended; nothing heavy is imported.

Start times are seconds since the epoch, computed as psutil computes them, and compared with a tolerance: the clock may have
been set in between, and no system hands out a pid again within two seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time

#: Clock changes move start times that the system keeps relative to its boot.
SAME_START_S = 2.0
_POLL_S = 0.1
_NICENESS = 10

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _TERMINATE, _QUERY, _SYNCHRONIZE = 0x0001, 0x1000, 0x00100000
    _STILL_ACTIVE = 259
    _BELOW_NORMAL = 0x4000
    _EPOCH_OFFSET = 116444736000000000

    def _kernel32() -> ctypes.WinDLL:
        library = ctypes.WinDLL("kernel32", use_last_error=True)
        library.OpenProcess.restype = wintypes.HANDLE
        library.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
        library.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        library.TerminateProcess.argtypes = [wintypes.HANDLE, wintypes.UINT]
        library.GetExitCodeProcess.argtypes = [wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD)]
        library.CloseHandle.argtypes = [wintypes.HANDLE]
        library.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]
        return library

    def _started(handle: int) -> float | None:
        times = [wintypes.FILETIME() for _ in range(4)]
        if not _kernel32().GetProcessTimes(handle, *[ctypes.byref(value) for value in times]):
            return None
        ticks = (times[0].dwHighDateTime << 32) + times[0].dwLowDateTime
        return float((ticks - _EPOCH_OFFSET) / 1e7)

    class _MemoryCounters(ctypes.Structure):
        """``PROCESS_MEMORY_COUNTERS`` of psapi.h."""

        _fields_ = (
            ("cb", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            ("peak_working_set", ctypes.c_size_t),
            ("working_set", ctypes.c_size_t),
            ("quotas_and_page_files", ctypes.c_size_t * 6),
        )

    def _working_set_bytes() -> int:
        library = _kernel32()
        library.GetCurrentProcess.restype = wintypes.HANDLE
        library.K32GetProcessMemoryInfo.argtypes = [wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD]
        counters = _MemoryCounters(cb=ctypes.sizeof(_MemoryCounters))
        library.K32GetProcessMemoryInfo(library.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
        return int(counters.working_set)

    def _ended(handle: int) -> bool:
        return bool(_kernel32().WaitForSingleObject(handle, 0) == 0)


def create_time(pid: int) -> float | None:
    """Return when a living process started; None when there is none with this pid (a zombie counts as none)."""
    if sys.platform == "win32":
        handle = _kernel32().OpenProcess(_QUERY | _SYNCHRONIZE, False, pid)
        if not handle:
            return None
        try:
            return None if _ended(handle) else _started(handle)
        finally:
            _kernel32().CloseHandle(handle)
    if sys.platform == "linux":
        fields = _stat_fields(pid)
        if fields is None or fields[0] in ("Z", "X", "x"):
            return None
        return float(fields[19]) / os.sysconf("SC_CLK_TCK") + _boot_time()
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, OSError):
        return None


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` from the state on; a program's name may hold blanks and parentheses."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return None


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("btime"):
                return float(line.split()[1])
    return 0.0


def is_alive(pid: int | None, started: float | None) -> bool:
    """Tell whether this very process lives; without a start time the pid alone decides."""
    if not pid or pid <= 0:
        return False
    found = create_time(pid)
    return found is not None and (started is None or abs(found - started) <= SAME_START_S)


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by a signal or a debugger; always False on Windows, which has no such state."""
    if sys.platform == "win32":
        return False
    if sys.platform == "linux":
        fields = _stat_fields(pid)
        return fields is not None and fields[0] in ("T", "t")
    import psutil

    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except (psutil.Error, OSError):
        return False


def memory_mb() -> float:
    """Return this process's resident memory; the sidecar asks before it knows where psutil is."""
    if sys.platform == "win32":
        return _working_set_bytes() / 2**20
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step_back() -> None:
    """Give this process a lower priority: where cores are few, the experiment's own processes go first."""
    if sys.platform == "win32":
        library = ctypes.WinDLL("kernel32")
        library.GetCurrentProcess.restype = wintypes.HANDLE
        library.SetPriorityClass.argtypes = [wintypes.HANDLE, wintypes.DWORD]
        library.SetPriorityClass(library.GetCurrentProcess(), _BELOW_NORMAL)
        return
    try:
        os.nice(_NICENESS)
    except OSError:
        return


class ProcessWatch:
    """Holds on to one process by a descriptor (pidfd, process handle), so that its pid cannot be taken for another's.

    Where the system has no such thing, pid and start time are polled.
    """

    def __init__(self, pid: int, started: float | None) -> None:
        self.pid = pid
        self.started = started
        self._handle: int | None = None
        self._code: int | None = None
        if sys.platform == "win32":
            self._handle = _kernel32().OpenProcess(_QUERY | _SYNCHRONIZE | _TERMINATE, False, pid) or None
        elif sys.platform == "linux":
            try:
                self._handle = os.pidfd_open(pid)
            except OSError:
                self._handle = None
        if self._handle is not None and not is_alive(pid, started):
            self.close()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; True when it has."""
        if sys.platform == "win32":
            if self._handle is not None:
                # A negative number would be taken for a wait of weeks.
                return bool(_kernel32().WaitForSingleObject(self._handle, max(0, int(timeout_s * 1000))) == 0)
        elif self._handle is not None:
            import select

            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            return bool(poll.poll(max(0.0, timeout_s) * 1000))
        deadline = time.monotonic() + timeout_s
        while is_alive(self.pid, self.started):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLL_S, left))
        return True

    def exit_code(self) -> int | None:
        """Return the ended process's exit code (a signal negative), or None where nobody but its parent can know it.

        On Linux the status stands in ``/proc`` until the parent has taken it, afterwards in the pidfd (kernel 6.15).
        """
        if self._code is None:
            self._code = self._ask_exit_code()
        return self._code

    def _ask_exit_code(self) -> int | None:
        if sys.platform == "win32":
            code = wintypes.DWORD()
            if self._handle is None or not _kernel32().GetExitCodeProcess(self._handle, ctypes.byref(code)):
                return None
            return int(code.value)
        if sys.platform != "linux" or self._handle is None:
            return None
        fields = _stat_fields(self.pid)
        if fields is not None and fields[0] == "Z" and len(fields) > 49:
            return _from_status(int(fields[49]))
        return _pidfd_exit_code(self._handle)

    def kill(self, signum: int | None = None) -> bool:
        """End the process at once, or send it a signal (POSIX); False when it is gone or is not ours to end."""
        if sys.platform == "win32":
            return self._handle is not None and bool(_kernel32().TerminateProcess(self._handle, 1))
        try:
            if sys.platform == "linux" and self._handle is not None:
                signal.pidfd_send_signal(self._handle, signum or signal.SIGKILL)
            elif is_alive(self.pid, self.started):
                os.kill(self.pid, signum or signal.SIGKILL)
            else:
                return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the process."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if sys.platform == "win32":
            _kernel32().CloseHandle(handle)
        else:
            os.close(handle)


def _from_status(status: int) -> int:
    """Return a wait status as an exit code, a signal negative."""
    return -(status & 0x7F) if status & 0x7F else (status >> 8) & 0xFF


def _pidfd_exit_code(pidfd: int) -> int | None:
    """Ask the kernel for a reaped process's status: ``PIDFD_GET_INFO`` with ``PIDFD_INFO_EXIT`` (linux/pidfd.h)."""
    if sys.platform == "win32":
        return None
    import fcntl
    import struct

    get_info, wants_exit = 0xC040FF0B, 1 << 3
    data = bytearray(struct.pack("=Q", wants_exit).ljust(64, b"\0"))
    try:
        fcntl.ioctl(pidfd, get_info, data)
    except OSError:
        return None
    mask, status = struct.unpack_from("=Q", data)[0], struct.unpack_from("=i", data, 60)[0]
    return _from_status(status) if mask & wants_exit else None
