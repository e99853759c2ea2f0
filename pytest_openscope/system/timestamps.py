"""Local time as text with microseconds and UTC offset, cheaply: a session writes some in every step."""

from __future__ import annotations

import time
from functools import lru_cache


def clock(second: int) -> tuple[int, str, str]:
    """Return ``second`` (since the epoch) with what stands before and after the microseconds of its local time."""
    local = time.localtime(second)
    offset_s = local.tm_gmtoff
    sign = "-" if offset_s < 0 else "+"
    minutes, seconds = divmod(abs(offset_s), 60)
    zone = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" + (f":{seconds:02d}" if seconds else "")
    return second, time.strftime("%Y-%m-%dT%H:%M:%S.", local), zone


def time_field(at: float) -> str:
    """Return a time in seconds since the epoch as local ISO 8601 with microseconds and UTC offset."""
    second = int(at // 1)
    _, before, after = clock(second)
    return f"{before}{min(999_999, round((at - second) * 1e6)):06d}{after}"


_clock_of = lru_cache(maxsize=2)(clock)


def now_iso() -> str:
    """Return the local time as ISO 8601 with microseconds and UTC offset."""
    second, ns = divmod(time.time_ns(), 1_000_000_000)
    _, before, after = _clock_of(second)
    return f"{before}{ns // 1000:06d}{after}"
