"""How fast each disk reads and writes, and which one holds a folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

_MB = 10**6


def io_rates(
    folder: str, before: tuple[float, dict[str, Any]] | None
) -> tuple[dict[str, dict[str, float]], str, tuple[float, dict[str, Any]]]:
    """Return rates per disk since ``before``, the name of the folder's disk, and the counters for the next call.

    Rates are in MB/s (10**6 bytes), empty at the first call. The name is empty where the system does not tell it.
    """
    import psutil

    now, counters = time.monotonic(), psutil.disk_io_counters(perdisk=True) or {}
    rates: dict[str, dict[str, float]] = {}
    if before is not None:
        passed_s = max(now - before[0], 1e-3)
        for name, counter in counters.items():
            last = before[1].get(name)
            if last is not None and not name.startswith(("loop", "ram")):
                rates[name] = {
                    "read_mb_per_s": round(max(0, counter.read_bytes - last.read_bytes) / passed_s / _MB, 3),
                    "write_mb_per_s": round(max(0, counter.write_bytes - last.write_bytes) / passed_s / _MB, 3),
                }
    return rates, disk_of(folder, counters), (now, counters)


def disk_of(folder: str, counters: dict[str, Any]) -> str:
    """Return the name under which the system counts the folder's disk; the only disk where there is but one."""
    if sys.platform == "linux":
        try:
            device = os.stat(folder).st_dev  # noqa: PTH116 - a plain number is all that is needed
            name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        except OSError:
            name = ""
        if name in counters:
            return name
    return next(iter(counters)) if len(counters) == 1 else ""
