"""The main process of an acquisition, from its start to its exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..system import Job, TreeUsage
from . import spawn

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from .spec import AcquisitionSpec


class Child:
    """Starts the process and takes its exit code.

    Raises:
        OSError, ValueError: it did not start.

    Attributes:
        create_time: seconds since the epoch.
        returncode: negative for a signal; None before the end, or when something else took it.
        ended_s: monotonic time of its end, else None.
        usage: memory and CPU of its tree.
        job: its job object (Windows).
    """

    def __init__(self, spec: AcquisitionSpec, folder: Path, files: spawn.OutputFiles) -> None:
        import psutil  # noqa: F401 - what may fail shall fail before the start

        self._subreaper = spawn.become_subreaper()
        self.started_s = time.monotonic()
        try:
            self._popen: subprocess.Popen[bytes] = spawn.spawn(spec, folder, files)
        except BaseException:
            self.resign()
            raise
        self.pid = self._popen.pid
        self.create_time = self._ask_create_time()
        self.returncode: int | None = None
        self.ended_s: float | None = None
        self.usage = TreeUsage(self.pid)
        self.job = Job()
        self._pidfd: int | None = None

    def attach(self) -> None:
        """Take hold of it, once it is known to the journal.

        Raises:
            OSError: Windows has no job for it.
        """
        self.job.add(self.pid)
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                self._pidfd = None

    def _ask_create_time(self) -> float:
        import psutil

        try:
            return psutil.Process(self.pid).create_time()
        except (psutil.Error, OSError):
            return time.time()

    @property
    def pgid(self) -> int | None:
        """Its process group and session, which it leads; None on Windows."""
        return None if sys.platform == "win32" else self.pid

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond its end where the system can tell."""
        if self.ended_s is not None:
            time.sleep(seconds)
        elif sys.platform == "win32":
            import subprocess

            try:
                self._popen.wait(seconds)
            except subprocess.TimeoutExpired:
                return
        elif self._pidfd is not None:
            import select

            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            poller.poll(seconds * 1000)
        else:
            time.sleep(seconds)

    def reap(self) -> bool:
        """Take its exit code, and those of orphans that came to this process; True when it has ended."""
        if sys.platform == "win32":
            if self.ended_s is None and self._popen.poll() is not None:
                self.usage.look()
                self.usage.counted(self.job.cpu_s() or 0.0)
                self._end(self._popen.returncode)
        elif self.ended_s is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._end(None)
            else:
                if pid:
                    self.usage.reaped(usage)
                    self._end(os.waitstatus_to_exitcode(status))
        if self.ended_s is not None:
            self.reap_orphans(self.usage.pids)
        return self.ended_s is not None

    def reap_orphans(self, seen: Collection[int]) -> None:
        """Wait for dead processes of the group (their number says whose they were) and for others known from the tree.

        Only once the main process's own exit code is taken, which a wait for the group could take away.
        """
        if sys.platform == "win32" or not self._subreaper or self.ended_s is None:
            return
        for number in (-self.pid, *tuple(seen)):
            try:
                while os.wait4(number, os.WNOHANG)[0] and number < 0:
                    pass
            except ChildProcessError:
                continue

    def _end(self, returncode: int | None) -> None:
        self.returncode = returncode
        self.ended_s = time.monotonic()

    def resign(self) -> None:
        """Take no more orphans."""
        if self._subreaper:
            self._subreaper = False
            spawn.resign_subreaper()

    def close(self) -> None:
        """Let go of everything but the process."""
        self.reap()
        self.resign()
        self.job.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._popen.returncode is None:  # or its destructor would warn, and wait where others may have taken the pid
            self._popen.returncode = self.returncode if self.returncode is not None else 0
