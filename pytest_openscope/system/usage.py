"""Memory and CPU time of a process tree: what the system counts of its main process, and samples of the whole tree."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil

#: Sampling costs a look at every process of the machine: at most this share of one core goes into it.
_COST_SHARE = 0.01
_FIRST_EVERY_S = 0.1
_EVERY_S = 1.0


class TreeUsage:
    """Peak memory and CPU time; None where nothing is known.

    Attributes:
        main_peak_mb: the main process's peak, as the system counts it.
        tree_peak_mb: the largest sum over the tree that a sample met.
        counted_cpu_s: user and system time as the system counts it once a process has ended (``wait4`` with the children that
            it waited for; on Windows the job's accounting).
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.main_peak_mb: float | None = None
        self.tree_peak_mb: float | None = None
        self.counted_cpu_s: float | None = None
        self._cpu_s: dict[int, float] = {}
        self._due_at_s = 0.0
        self._samples = 0

    def facts(self) -> dict[str, float | None]:
        """Return what a session's record keeps: of each two numbers the larger one too.

        Samples miss what is short, and the system neither sums memory over a tree nor counts processes for which nobody waited.
        """
        sampled_cpu_s = sum(self._cpu_s.values()) if self._cpu_s else None
        return {
            "peak_memory_mb": _larger(self.main_peak_mb, self.tree_peak_mb),
            "peak_memory_main_mb": self.main_peak_mb,
            "peak_memory_tree_mb": self.tree_peak_mb,
            "cpu_s": _larger(self.counted_cpu_s, sampled_cpu_s),
            "cpu_counted_s": _larger(self.counted_cpu_s),
            "cpu_sampled_s": _larger(sampled_cpu_s),
        }

    def look(self) -> None:
        """Ask the system for the main process's peak; cheap enough for every turn of a loop (30 microseconds on Linux)."""
        try:
            if sys.platform == "linux":
                _, _, rest = Path(f"/proc/{self.pid}/status").read_bytes().partition(b"VmHWM:")
                self._main_peak(int(rest.split()[0]) * 1.024e-3 if rest else 0.0)
            elif sys.platform == "win32":
                self._main_peak(psutil.Process(self.pid).memory_info().peak_wset / 1e6)
        except (psutil.Error, OSError):
            return

    def sample(self) -> None:
        """Look, and take a sample of the tree when it is time for one: often in the first second, then about every second."""
        self.look()
        started_s = time.monotonic()
        if started_s < self._due_at_s:
            return
        self._sample()
        self._samples += 1
        now_s = time.monotonic()
        every_s = _FIRST_EVERY_S if self._samples < 8 else _EVERY_S
        self._due_at_s = now_s + max(every_s, (now_s - started_s) / _COST_SHARE)

    def _sample(self) -> None:
        try:
            root = psutil.Process(self.pid)
            processes = [root, *root.children(recursive=True)]
        except (psutil.Error, OSError):
            return
        memory_bytes = 0
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory_bytes += process.memory_info().rss
            except (psutil.Error, OSError):
                continue
            self._cpu_s[process.pid] = times.user + times.system
        if memory_bytes:
            self.tree_peak_mb = round(max(memory_bytes / 1e6, self.tree_peak_mb or 0.0), 1)

    def _main_peak(self, memory_mb: float) -> None:
        if memory_mb > 0:
            self.main_peak_mb = round(max(memory_mb, self.main_peak_mb or 0.0), 1)

    def reaped(self, rusage: Any) -> None:
        """Take in what ``wait4`` says of a process that has ended, with the children that it waited for."""
        if sys.platform == "win32":
            return
        import resource

        self.counted(rusage.ru_utime + rusage.ru_stime)
        unit_mb = 1e-6 if sys.platform == "darwin" else 1.024e-3
        # A child's peak begins with that of the process that started it, so a smaller one says nothing.
        if rusage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            self._main_peak(rusage.ru_maxrss * unit_mb)

    def counted(self, cpu_s: float) -> None:
        """Add CPU time that the system counted."""
        self.counted_cpu_s = (self.counted_cpu_s or 0.0) + cpu_s


def _larger(*values: float | None) -> float | None:
    return max((round(value, 3) for value in values if value is not None), default=None)
