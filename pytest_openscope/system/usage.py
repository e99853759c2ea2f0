"""Memory and CPU time of a process tree, sampled."""

from __future__ import annotations

import sys
import time
from typing import Any

#: Sampling costs a look at every process of the machine: at most this share of one core goes into it.
_COST_SHARE = 0.01
_FIRST_EVERY_S = 0.1
_EVERY_S = 1.0


class TreeUsage:
    """Peak memory (sum over the tree) and CPU time, the main process's own accounts included where the system keeps them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_memory_mb: float | None = None
        #: Every process that a sample has seen.
        self.pids: set[int] = set()
        self._cpu_s: dict[int, float] = {}
        self._reaped_cpu_s = 0.0
        self._due_at_s = 0.0
        self._samples = 0

    @property
    def cpu_s(self) -> float | None:
        """User and system time of the whole tree so far, in seconds."""
        sampled = sum(self._cpu_s.values())
        return max(sampled, self._reaped_cpu_s) if sampled or self._reaped_cpu_s else None

    def sample_if_due(self) -> None:
        """Take a sample when it is time for one: often in the first second, then about every second."""
        started_s = time.monotonic()
        if started_s < self._due_at_s:
            return
        self._sample()
        self._samples += 1
        now_s = time.monotonic()
        every_s = _FIRST_EVERY_S if self._samples < 8 else _EVERY_S
        self._due_at_s = now_s + max(every_s, (now_s - started_s) / _COST_SHARE)

    def _sample(self) -> None:
        import psutil

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
            self.pids.add(process.pid)
            self._cpu_s[process.pid] = times.user + times.system
        self._peak(memory_bytes / 1e6)

    def _peak(self, memory_mb: float) -> None:
        if memory_mb > 0:
            self.peak_memory_mb = round(max(memory_mb, self.peak_memory_mb or 0.0), 1)

    def reaped(self, rusage: Any) -> None:
        """Take in what the system says of a process that has ended, with the children that it waited for."""
        if sys.platform == "win32":
            return
        import resource

        self._reaped_cpu_s += rusage.ru_utime + rusage.ru_stime
        unit_mb = 1e-6 if sys.platform == "darwin" else 1.024e-3
        # A child's peak begins with that of the process that started it, so a smaller one says nothing.
        if rusage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            self._peak(rusage.ru_maxrss * unit_mb)
