from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openscope.system.times import clock, now_iso, time_field


def test_times_carry_the_offset_of_their_own_day(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be changed here")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert time_field(1_700_000_000.5) == "2023-11-14T23:13:20.500000+01:00"
        assert time_field(1_690_000_000) == "2023-07-22T06:26:40.000000+02:00"
        monkeypatch.setenv("TZ", "XXX+03:30:15")
        time.tzset()
        stamp = time_field(0)
        assert stamp.endswith("-03:30:15")
        assert datetime.fromisoformat(stamp).utcoffset() == -timedelta(hours=3, minutes=30, seconds=15)
    finally:
        monkeypatch.undo()
        time.tzset()
        clock.cache_clear()


def test_microseconds_never_carry_into_eight_digits() -> None:
    assert time_field(9.9999999)[17:26] == "10.000000"


def test_now_is_what_datetime_says() -> None:
    for _ in range(200):
        before = datetime.now().astimezone()
        stamp = now_iso()
        after = datetime.now().astimezone()
        assert len(stamp) == 32
        # datetime cuts off what is below a microsecond, a stamp is rounded.
        assert before <= datetime.fromisoformat(stamp) <= after + timedelta(microseconds=1)
        assert datetime.fromisoformat(stamp).utcoffset() == after.utcoffset()


@given(st.floats(0, 4e9))
def test_a_time_is_what_datetime_says(at: float) -> None:
    assert time_field(at) == datetime.fromtimestamp(at, timezone.utc).astimezone().isoformat(timespec="microseconds")
