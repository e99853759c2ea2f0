"""Times and durations as text."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime, timezone
from functools import lru_cache

#: Durations as people write them; a plain number is seconds.
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "": 1.0}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|d|w|)\s*", re.IGNORECASE)


def parse_duration_s(value: object) -> float:
    """Return seconds.

    Raises:
        ValueError: with the forms that are understood; negative and non-finite values are among what is not.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    match = _PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no duration: write 500ms, 2s, 10m, 24h, 7d or a number of seconds")
    return float(match[1]) * _UNITS_S[match[2].lower()]


def format_duration(seconds: float) -> str:
    """Return a duration in the unit in which it reads best: ``0.5 s``, ``3 min``, ``2.5 h``, ``4 d``."""
    for limit, unit, size in ((120, "s", 1.0), (7200, "min", 60.0), (172800, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def time_field(at: float) -> str:
    """Return a time in seconds since the epoch as local ISO 8601 with microseconds and UTC offset."""
    second = math.floor(at)
    micro = round((at - second) * 1e6)
    if micro == 1_000_000:
        second, micro = second + 1, 0
    _, before, after = clock(second)
    return f"{before}{micro:06d}{after}"


def now_iso() -> str:
    """Return the local time as ISO 8601 with microseconds and UTC offset."""
    return time_field(time.time())


@lru_cache(maxsize=4)
def clock(second: int) -> tuple[int, str, str]:
    """Return ``second`` (since the epoch) with what stands before and after the microseconds of its local time.

    The times of all events and records of a second are made from it, since each of them costs the experiment time.
    """
    text = datetime.fromtimestamp(second, timezone.utc).astimezone().isoformat()
    return second, f"{text[:19]}.", text[19:]
