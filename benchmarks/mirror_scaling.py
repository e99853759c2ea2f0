"""How the mirror's cost grows from 1 to 50 writers in one central directory.

Every writer is a real worker process; every call on the share takes ``--delay-ms`` (as on a network). Each session logs a few
lines twice a second. Printed per number of writers, as measured and as ratio to one writer:

* turns/s: how often lines reached the day's log, all writers together;
* lock in use: share of looks at which somebody held the day's lock;
* lag of own copy, lag of day's log: 50th and 99th percentile of the time from a line's write to its arrival.

Run: ``python benchmarks/mirror_scaling.py [--writers 1,2,5,10,20,50] [--seconds 10] [--delay-ms 2]``. Among all benchmarks it
measures ten writers against one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "unit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mirror_tools import Bench, check_day

from benchmarks.harness import Cost, NotMeasuredError, Result
from pytest_openscope.mirror.control import MirrorTuning

LINES = b"".join(
    b"2026-03-04T10:00:00.000000+01:00 INFO acquisition step my.logger: frame %06d written\n" % i for i in range(5)
)


class Watched:
    """One session, and when its lines arrived."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.waiting: dict[str, list[tuple[int, float]]] = {"copied": [], "day": []}
        self.lags: dict[str, list[float]] = {"copied": [], "day": []}
        self.turns = 0
        self._seen = 0

    def write(self) -> None:
        self.bench.write(LINES)
        size, now = self.bench.log.stat().st_size, time.monotonic()
        for waiting in self.waiting.values():
            waiting.append((size, now))

    def look(self) -> None:
        self.bench.supervisor.tick()
        latest, now = self.bench.supervisor._latest, time.monotonic()
        for what, waiting in self.waiting.items():
            there = latest.get(what) or 0
            while waiting and waiting[0][0] <= there:
                self.lags[what].append(now - waiting.pop(0)[1])
        day = latest.get("day") or 0
        self.turns += day > self._seen
        self._seen = max(day, self._seen)

    def forget(self) -> None:
        self.turns = 0
        for lags in self.lags.values():
            lags.clear()


def lock_in_use(day: Path) -> bool:
    import fcntl
    import struct

    with day.open("r+b") as stream:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 2**40, 1, 0)
        return struct.unpack("hhqqi4x", fcntl.fcntl(stream, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def measure(folder: Path, writers: int, seconds: float, delay_s: float) -> dict[str, float]:
    (folder / "central").mkdir(parents=True)
    sessions = [Watched(Bench(folder / f"pc{i}", folder / "central", f"rig-{i:02}")) for i in range(writers)]
    for session in sessions:
        session.bench.set(all=delay_s, interval_s=1.0, rest=20.0)
        session.bench.start(faulty=True, tuning=MirrorTuning())
    day = sessions[0].bench.job.day_log
    looks = locked = 0
    start = time.monotonic()
    begin, stop = start + 3.0, start + 3.0 + seconds
    due = [start + 0.5 * i / writers for i in range(writers)]
    warm = True
    while (now := time.monotonic()) < stop:
        if warm and now > begin:
            warm, looks, locked = False, 0, 0
            for session in sessions:
                session.forget()
        for i, session in enumerate(sessions):
            if now >= due[i]:
                session.write()
                due[i] += 0.5
            session.look()
        if day.exists():
            looks += 1
            locked += lock_in_use(day)
        time.sleep(0.005)
    turns = sum(session.turns for session in sessions)
    for session in sessions:
        session.bench.supervisor.finish_soon()
    ending = time.monotonic()
    while not all(session.bench.supervisor.status().settled for session in sessions):
        for session in sessions:
            session.bench.supervisor.tick()
        time.sleep(0.02)
    finished_s = time.monotonic() - ending
    for session in sessions:
        session.bench.supervisor.stop()
    check_day(day, *(session.bench for session in sessions))
    copied = [lag for session in sessions for lag in session.lags["copied"]]
    daily = [lag for session in sessions for lag in session.lags["day"]]
    return {
        "turns/s": turns / seconds,
        "lock in use %": 100 * locked / max(1, looks),
        "own copy p50 s": percentile(copied, 0.5),
        "own copy p99 s": percentile(copied, 0.99),
        "day's log p50 s": percentile(daily, 0.5),
        "day's log p99 s": percentile(daily, 0.99),
        "all finished s": finished_s,
    }


def run(quick: bool) -> Iterator[Result]:
    """Measure how much later lines arrive where ten sessions write than where one does."""
    if sys.platform == "win32":
        raise NotMeasuredError("the lock of the day's log is looked at by POSIX calls")
    found = {}
    for writers in (1, 10):
        with tempfile.TemporaryDirectory() as folder:
            found[writers] = measure(Path(folder), writers, 5.0 if quick else 20.0, 0.002)
    for copy in ("own copy", "day's log"):
        one, ten = ([Cost(found[writers][f"{copy} p50 s"])] for writers in (1, 10))
        slowest = (
            f"99 of 100 lines: {found[1][f'{copy} p99 s']:.2f} s with one session, {found[10][f'{copy} p99 s']:.2f} s with ten"
        )
        name = f"mirror of ten sessions at once, lag of the {copy}"
        yield Result(name, "one session, on the same share", one, ten, per="line", notes=[slowest])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", default="1,2,5,10,20,50")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--delay-ms", type=float, default=2.0)
    options = parser.parse_args()
    first: dict[str, float] | None = None
    for writers in map(int, options.writers.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), writers, options.seconds, options.delay_ms / 1000)
        if first is None:
            first = found
            print("| writers | " + " | ".join(found) + " |")
            print("|---|" + "---|" * len(found))
        cells = [
            f"{value:.2f} ({value / first[name]:.1f} x)" if first[name] else f"{value:.2f}" for name, value in found.items()
        ]
        print(f"| {writers} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
