"""Values from the files of sessions, whatever version or program wrote them, and sizes as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def number_of(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if good else None


def time_of(value: Any) -> datetime | None:
    """Return an ISO 8601 time with its offset; None for anything else, and for years that no rig has seen."""
    try:
        time = datetime.fromisoformat(str(value))
        return (time if time.tzinfo is not None else time.astimezone()) if 1970 <= time.year < 2200 else None
    except (ValueError, OverflowError, OSError):
        return None


def duration_s_of(end: Mapping[str, Any]) -> float | None:
    """Return how long a session took by its end state; one of an earlier version has its two times only."""
    start, stop = time_of(end.get("start_time")), time_of(end.get("stop_time"))
    if (measured := number_of(end.get("duration_s"))) is not None or start is None or stop is None:
        return measured
    return max(0.0, (stop - start).total_seconds())


def whole_text(text: str) -> str:
    """Return text without the lone surrogates that stand for odd bytes, which neither UTF-8 nor a database holds."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def size(count: float) -> str:
    """Return a number of bytes in the unit in which it reads best."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return f"{count:.0f} bytes"
