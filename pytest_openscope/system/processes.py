"""Other processes: known by pid *and* start time, started as helpers, watched without their help, and ended.

A start time is what the system keeps, whatever happens to the clock meanwhile: seconds since the boot on Linux, which knows
no other, and since the epoch elsewhere. Start times are compared with a tolerance, since they may have been noted a moment
late, and no system hands out a pid again within two seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from .clocks import elapsed_s

if sys.platform == "win32":
    import _winapi
else:
    import fcntl
    import select
    import struct

SAME_START_S = 2.0
#: A larger start time is one since the epoch, as psutil tells it: from a lab's own acquisition adapter, or an older journal.
_SINCE_EPOCH_S = 1e9
_POLL_S = 0.1
_NICENESS = 10
#: Field 22 of ``/proc/PID/stat``, counted from the state, which is the third.
_START_FIELD = 19
_TERMINATE, _QUERY, _SYNCHRONIZE = 0x0001, 0x1000, 0x00100000
#: Runs in the helper: argv[1] holds the import paths to add as JSON, argv[2] the module, whose ``main(args)`` gets the rest.
_BOOT = (
    "import sys,json;sys.path[:0]=json.loads(sys.argv[1]);from importlib import import_module;"
    "sys.exit(import_module(sys.argv[2]).main(sys.argv[3:]))"
)


def same_process(pid: int | None, started: float | None) -> psutil.Process | None:
    """Return the living process with this pid and start time, or None; without a start time the pid alone decides."""
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        if started is not None:
            own = process.create_time() if started > _SINCE_EPOCH_S else start_of(process)
            if abs(own - started) > SAME_START_S:
                return None
        return process if runs(process) else None
    except (psutil.Error, OSError, OverflowError):
        return None


def start_of(process: psutil.Process) -> float:
    """Return the start time by which a process is known; psutil's own changes on Linux with every change of the clock.

    Raises:
        psutil.NoSuchProcess: the process is gone.
    """
    if sys.platform != "linux":
        return float(process.create_time())
    fields = _stat_fields(process.pid)
    if fields is None:
        raise psutil.NoSuchProcess(process.pid)
    return int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")


def age_s(pid: int) -> float:
    """Return for how long a process has run; 0 when it is gone."""
    started = create_time(pid)
    return 0.0 if started is None else max(0.0, start_of_now() - started)


def start_of_now() -> float:
    """Return the start time of a process that is started at this moment."""
    return elapsed_s() if sys.platform == "linux" else time.time()


def runs(process: psutil.Process) -> bool:
    """Tell whether it still runs; one that waits for its parent to read its exit code does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True


def is_alive(pid: int | None, started: float | None) -> bool:
    """Tell whether :func:`same_process` finds it."""
    return same_process(pid, started) is not None


def create_time(pid: int) -> float | None:
    """Return the start time of a living process, by which it is known again; None when there is none with this pid."""
    process = same_process(pid, None)
    try:
        return None if process is None else start_of(process)
    except (psutil.Error, OSError):
        return None


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the state on: a program's name may hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, by a signal or a debugger; always False on Windows, which has no such state."""
    if sys.platform == "win32":
        return False
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except (psutil.Error, OSError):
        return False


def cpu_s(pid: int) -> float | None:
    """Return the CPU time that a process has used; None when it cannot be had."""
    try:
        used = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(used.user + used.system)


def step_back() -> None:
    """Give this process a lower priority: where cores are few, the experiment's own processes go first."""
    with contextlib.suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            psutil.Process().nice(_NICENESS)


def isolated_python() -> list[str]:
    """Return the command of an interpreter that finds the standard library only.

    On Windows the base interpreter: a virtual environment's ``python.exe`` only starts that one, and a kill would hit it alone.
    """
    base = getattr(sys, "_base_executable", None) if sys.platform == "win32" else None
    return [base or sys.executable, "-I", "-S"]


def light_command(module: str, args: Sequence[str], extra_paths: Sequence[str] = ()) -> list[str]:
    """Return the command that runs ``module.main(args)`` with ``-I -S``, ready within milliseconds.

    It finds the standard library, this package, the folder that psutil is installed in, and ``extra_paths``.
    """
    paths = [str(Path(__file__).resolve().parents[2]), str(Path(psutil.__file__).resolve().parents[1]), *extra_paths]
    return [*isolated_python(), "-c", _BOOT, json.dumps(paths), module, *args]


def spawn_detached(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session (Windows: process group, without console window) of its own: no Ctrl-C reaches it.

    On Windows it leaves the job that it would be born into, where that job lets it: what ends a job ends all in it.

    Raises:
        OSError: the process cannot be created.
    """
    if sys.platform != "win32":
        return subprocess.Popen(command, **options, start_new_session=True)
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    try:
        return subprocess.Popen(command, **options, creationflags=flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
    except PermissionError:
        return subprocess.Popen(command, **options, creationflags=flags)


@contextlib.contextmanager
def lent_watch() -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Lend a child a handle to this process: however late the child starts, it learns how this process ended.

    Yields the handle's number in the child (None where the system has no such handles) and the options of ``Popen``.
    """
    if sys.platform == "win32":
        me = _winapi.GetCurrentProcess()
        handle = _winapi.DuplicateHandle(me, me, me, _QUERY | _SYNCHRONIZE | _TERMINATE, True)
        try:
            yield handle, {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
        finally:
            _winapi.CloseHandle(handle)
    elif sys.platform == "linux":
        handle = os.pidfd_open(os.getpid())
        try:
            yield handle, {"pass_fds": (handle,)}
        finally:
            os.close(handle)
    else:
        yield None, {}


def lines_of(fd: int) -> Iterator[bytes]:
    """Yield the lines that come through a pipe, read from the descriptor itself.

    A daemon thread that holds the lock of a buffered stream is a fatal error when the interpreter shuts down.

    Raises:
        OSError: the pipe broke.
    """
    rest = b""
    while block := os.read(fd, 65536):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def running_processes() -> Iterator[psutil.Process]:
    """Yield all processes; ``psutil.process_iter`` takes one for ended that has got the number of an earlier one."""
    for pid in psutil.pids():
        # One that has ended, or of which nothing is told: under Wine psutil raises a plain OSError.
        with contextlib.suppress(psutil.Error, OSError):
            yield psutil.Process(pid)


class ProcessWatch:
    """Holds on to one process by a descriptor (pidfd, process handle), so that its pid cannot be taken for another's.

    Where the system has no such thing, pid and start time are polled.

    Args:
        lent: the handle that the process itself has lent (:func:`lent_watch`).
    """

    def __init__(self, pid: int, started: float | None, lent: int | None = None) -> None:
        self.pid = pid
        self.started = started
        self._handle = lent
        self._code: int | None = None
        if lent is not None:
            return
        try:
            if sys.platform == "win32":
                self._handle = _winapi.OpenProcess(_QUERY | _SYNCHRONIZE | _TERMINATE, False, pid)
            elif sys.platform == "linux":
                self._handle = os.pidfd_open(pid)
        except OSError:
            return
        if not is_alive(pid, started):
            self.close()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; True when it has."""
        timeout_ms = max(0, int(timeout_s * 1000))  # a negative number would be taken for a wait of weeks
        if self._handle is not None and sys.platform == "win32":
            return _winapi.WaitForSingleObject(self._handle, timeout_ms) == _winapi.WAIT_OBJECT_0
        if self._handle is not None and sys.platform != "win32":
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            return bool(poll.poll(timeout_ms))
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
        if self._code is None and self._handle is not None:
            if sys.platform == "win32":
                self._code = _winapi.GetExitCodeProcess(self._handle)
            else:
                status = _ended_status(self.pid, self._handle)
                self._code = None if status is None else os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self, signum: int | None = None) -> bool:
        """End the process at once, or send it a signal (POSIX); False when it is gone or is not ours to end."""
        try:
            if sys.platform == "win32":
                if self._handle is None:
                    return False
                _winapi.TerminateProcess(self._handle, 1)
            elif sys.platform == "linux" and self._handle is not None:
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
        if handle is not None:
            if sys.platform == "win32":
                _winapi.CloseHandle(handle)
            else:
                os.close(handle)


if sys.platform != "win32":

    def _ended_status(pid: int, pidfd: int) -> int | None:
        """Return the wait status of a process that its parent has not reaped, else ask the kernel for it.

        psutil gives neither. Source: linux/pidfd.h, ``PIDFD_GET_INFO`` with ``PIDFD_INFO_EXIT``.
        """
        fields = _stat_fields(pid) or []
        if len(fields) > 49 and fields[0] == "Z":
            return int(fields[49])
        get_info, wants_exit = 0xC040FF0B, 1 << 3
        data = bytearray(struct.pack("=Q", wants_exit).ljust(64, b"\0"))
        try:
            fcntl.ioctl(pidfd, get_info, data)
        except OSError:
            return None
        status: int = struct.unpack_from("=i", data, 60)[0]
        return status if struct.unpack_from("=Q", data)[0] & wants_exit else None
