"""Many rigs, one defect."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_openscope.issues import outbox
from pytest_openscope.issues.client import Timing
from pytest_openscope.issues.sending import drain

from .fake_github import FakeGithub
from .kit import Rig, SimClock, run_until_idle
from .outgoing import TOKEN

DAY = 86_400.0


@pytest.mark.parametrize(
    ("count", "lag_s"), [*((count, 4.0) for count in range(2, 17)), (2, 0.0), (16, 0.0), (2, 60.0), (16, 60.0)]
)
def test_rigs_that_fail_at_once_end_with_one_open_issue(
    count: int, lag_s: float, make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.list_lag_s = lag_s
    rigs = [make_rig(f"rig-{number:02}") for number in range(count)]
    for rig in rigs:
        rig.fail()
    run_until_idle(rigs, clock)
    assert github.open_numbers() == [1]
    assert lag_s == 0.0 or len(github.issues) == count, "this was no race"
    for number, issue in github.issues.items():
        if number != 1:
            assert issue["state_reason"] == "duplicate"
            assert issue["duplicate_issue_id"] == github.issues[1]["id"]
            assert github.comment_bodies(number)[0].startswith("Duplicate of #1\n")
    assert len(github.comments[1]) <= count - 1
    clock.advance(DAY)
    for rig in rigs:
        rig.fail()
    run_until_idle(rigs, clock)
    assert {rig.answers[-1]["issue_number"] for rig in rigs} == {1}
    assert github.open_numbers() == [1]


def test_rigs_that_fail_within_the_lag_one_after_another(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.list_lag_s = 30.0
    rigs = [make_rig(f"rig-{number}") for number in range(6)]
    for rig in rigs:
        rig.fail()
        rig.drain(1.0)
        clock.advance(4.0)
    run_until_idle(rigs, clock)
    assert github.open_numbers() == [1]


@pytest.mark.parametrize("number_of_rigs", [8, pytest.param(50, marks=pytest.mark.stress)])
def test_repeats_from_many_rigs_over_ten_days(
    number_of_rigs: int, make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    github.list_lag_s = 4.0
    rigs = [make_rig(f"rig-{number:02}") for number in range(number_of_rigs)]
    rigs[7].fail()
    run_until_idle([rigs[7]], clock)
    for _ in range(10):
        for rig in rigs:
            for _ in range(2):
                rig.fail()
                rig.drain(1.0)
        clock.advance(DAY)
    run_until_idle(rigs, clock)
    assert len(github.issues) == 1
    assert sum(map(len, github.comments.values())) <= 10 * number_of_rigs


@pytest.mark.stress
def test_real_time_sixteen_senders_with_a_lagging_list(make_rig: Callable[..., Rig], clock: SimClock) -> None:
    server = FakeGithub(time.time)
    server.list_lag_s = 4.0
    timing = Timing(write_pace_s=0.0, settle_s=(6.0, 12.0), trust_s=12.0)
    try:
        rigs = [make_rig(f"rig-{number:02}", api_base_url=server.base_url, timeout_s=60.0) for number in range(16)]
        for rig in rigs:
            rig.fail()

        def send(state: Path) -> None:
            drain(state, 120.0, lambda name: TOKEN, timing=timing)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(send, [rig.state for rig in rigs]))
        assert server.open_numbers() == [1]
        assert not any(outbox.waiting(rig.state) for rig in rigs)
    finally:
        server.close()
