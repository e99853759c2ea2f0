"""Many sessions at once in one central directory, and workers killed at random moments."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mirror_tools import Bench, check_day
from sidecar_kit import kill

from pytest_openscope.mirror.control import MirrorTuning

#: Twenty workers at once may need long to start, of which the operator would be told.
TUNING = MirrorTuning(retry_first_s=0.05, retry_most_s=0.1, warn_s=60.0)


def tick_all(benches: list[Bench], seconds: float) -> None:
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for bench in benches:
            bench.supervisor.tick()
        time.sleep(0.02)


def finish_all(benches: list[Bench], timeout_s: float) -> None:
    for bench in benches:
        bench.supervisor.finish_soon()
    deadline = time.monotonic() + timeout_s
    while not all(bench.supervisor.status().status == "verified" for bench in benches):
        late = [bench.supervisor.status() for bench in benches if bench.supervisor.status().status != "verified"]
        assert time.monotonic() < deadline, late
        tick_all(benches, 0.05)
    for bench in benches:
        bench.supervisor.stop()


def make(tmp_path: Path, count: int) -> list[Bench]:
    (tmp_path / "central").mkdir(parents=True)
    return [Bench(tmp_path / f"pc{i}", tmp_path / "central", f"rig-{i % 7}", f"mouse_{i // 7}") for i in range(count)]


def test_twenty_sessions_at_once(tmp_path: Path) -> None:
    benches = make(tmp_path, 20)
    try:
        for bench in benches:
            bench.start(tuning=TUNING)
        for turn in range(3):
            for i, bench in enumerate(benches):
                bench.chat(100, seed=turn * 100 + i)
                bench.write(b"cut in mid-li")
            tick_all(benches, 0.8)
            for bench in benches:
                bench.write(b"ne\r\n")
        finish_all(benches, 100)
    finally:
        for bench in benches:
            bench.supervisor.stop()
    assert all(bench.same() for bench in benches)
    check_day(benches[0].job.day_log, *benches)
    assert [notice for bench in benches for notice in bench.notices] == []


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    """With the hints that workers leave for each other and without; both at the same time, since they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        for checked in [pool.submit(kill_9_at_random_moments, tmp_path / hints, hints) for hints in ("kept", "deleted")]:
            checked.result()


def kill_9_at_random_moments(tmp_path: Path, hints: str) -> None:
    chooser = random.Random(hints)
    benches = make(tmp_path, 4)
    kills = 0
    try:
        for bench in benches:
            bench.start(tuning=TUNING)
        for _ in range(25):
            for bench in benches:
                bench.chat(chooser.randrange(200), seed=chooser.randrange(10**6))
            tick_all(benches, chooser.uniform(0.0, 0.3))
            victim = chooser.choice(benches)
            for pid in victim.supervisor.pids:
                kill(pid)
                kills += 1
            if hints == "deleted":
                victim.job.hint_path.unlink(missing_ok=True)
        finish_all(benches, 100)
    finally:
        for bench in benches:
            bench.supervisor.stop()
    assert kills >= 15
    assert all(bench.same() for bench in benches)
    check_day(benches[0].job.day_log, *benches)
