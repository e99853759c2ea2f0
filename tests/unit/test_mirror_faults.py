"""The mirror on faulty shares: a real worker process whose file calls fail as told."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from mirror_tools import FAST, Bench, check_day, day_lines

from pytest_openscope.mirror.day_file import format_line
from pytest_openscope.system import WorkerProcess

Make = Callable[[Iterable[str]], dict[str, Bench]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the faulty share wraps POSIX calls")


@pytest.fixture
def bench(tmp_path: Path):
    (tmp_path / "central").mkdir()
    made = Bench(tmp_path, tmp_path / "central")
    yield made
    if made.supervisor is not None:
        made.supervisor.stop()


@pytest.fixture
def make(tmp_path: Path):
    """Make benches, each with a central directory of its own, for sessions that wait at the same time."""
    made = []

    def make(names: Iterable[str]) -> dict[str, Bench]:
        benches = {}
        for number, name in enumerate(names):
            central = tmp_path / f"bench{number}" / "central"
            central.mkdir(parents=True)
            benches[name] = Bench(central.parent, central)
        made.extend(benches.values())
        return benches

    yield make
    for bench in made:
        if bench.supervisor is not None:
            bench.supervisor.stop()


def run_all(benches: Iterable[Bench], seconds: float) -> None:
    """Run the loops of all sidecars side by side."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        for bench in benches:
            bench.tick(rest_s=0.0)
        time.sleep(0.02)


def until_all(benches: dict[str, Bench], true: Callable[[Bench], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while late := [name for name, bench in benches.items() if not true(bench)]:
        assert time.monotonic() < deadline, [(name, benches[name].supervisor.status(), benches[name].notices) for name in late]
        for bench in benches.values():
            bench.tick(rest_s=0.0)
        time.sleep(0.02)


def finish_all(benches: dict[str, Bench]) -> None:
    for bench in benches.values():
        bench.supervisor.finish_soon()
    until_all(benches, lambda bench: bench.supervisor.status().status == "verified")
    for name, bench in benches.items():
        bench.supervisor.stop()
        assert bench.same(), name
        check_day(bench.job.day_log, bench)


def copied(bench: Bench) -> bool:
    return bench.supervisor.copied_bytes == bench.log.stat().st_size


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process has ended; a zombie that nobody reaps has."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ends_well(bench: Bench) -> None:
    assert bench.same()
    check_day(bench.job.day_log, bench)


@pytest.mark.parametrize("file", ["day", "own"])
def test_a_write_that_fails(make: Make, file: str) -> None:
    benches = make(["eio", "part_eio", "all_eio", "short", "enospc", "short_enospc", "die"])
    for do, bench in benches.items():
        bench.set(faults=[{"op": "write", "file": file, "nth": 1, "do": do, "times": 2}])
        bench.start(faulty=True)
        bench.chat(40)
    until_all(benches, copied)
    for bench in benches.values():
        bench.chat(3000, seed=1)
    run_all(benches.values(), 0.5)
    benches["die"].set()
    for bench in benches.values():
        bench.chat(20, seed=2)
    finish_all(benches)


def test_the_final_flush_fails(make: Make) -> None:
    benches = make(["day", "own"])
    for file, bench in benches.items():
        bench.chat(50)
        bench.set(faults=[{"op": "fsync", "file": file, "nth": 0, "do": "eio", "times": 10**6}])
        bench.start(faulty=True)
        bench.supervisor.finish_soon()
    run_all(benches.values(), 1.5)
    for file, bench in benches.items():
        status = bench.supervisor.status()
        assert status.status == "pending", file
        assert "Input/output error" in status.reason, file
        assert len(bench.warnings()) == 1, file
        bench.set()
    until_all(benches, lambda bench: bench.supervisor.status().status == "verified")
    for bench in benches.values():
        ends_well(bench)
        assert "answers again" in bench.notices[-1].text


def test_replacing_a_metadata_file_fails(bench: Bench) -> None:
    (bench.log.parent / "end_state.json").write_text("{}", encoding="utf-8")
    bench.chat(5)
    bench.set(faults=[{"op": "replace", "file": "any", "nth": 0, "do": "eio", "times": 2}])
    bench.mirror(faulty=True)
    assert (bench.job.own_folder / "end_state.json").read_text(encoding="utf-8") == "{}"
    assert not list(bench.job.own_folder.glob(".*"))


def test_unusable_from_the_start_and_back_later(make: Make) -> None:
    benches = make(["missing", "erofs", "hang"])
    for how, bench in benches.items():
        bench.set(all=how)
        bench.start(faulty=True)
        bench.chat(100)
    run_all(benches.values(), 2.5)
    for how, bench in benches.items():
        assert bench.supervisor.status().status == "pending", how
        assert bench.supervisor.status().bytes_behind == bench.log.stat().st_size, how
        assert len(bench.warnings()) == 1, how
        bench.set(all=None)
    until_all(benches, copied)
    finish_all(benches)
    assert [len(bench.warnings()) for bench in benches.values()] == [1, 1, 1]


def test_hung_at_the_end_does_not_hold_up_the_sidecar(bench: Bench) -> None:
    bench.start(faulty=True)
    bench.chat(100)
    bench.until(lambda: bench.supervisor.copied_bytes)
    bench.set(all="hang")
    bench.chat(100, seed=1)
    bench.supervisor.finish_soon()
    bench.run(1.0)
    assert bench.supervisor.status().status == "pending"
    before = time.monotonic()
    bench.supervisor.stop()
    assert time.monotonic() - before < 10
    bench.set(all=None)
    bench.mirror(faulty=True)
    ends_well(bench)


def test_the_own_copy_keeps_up_on_a_slow_share(bench: Bench) -> None:
    bench.set(all=0.005)
    bench.start(faulty=True)
    bench.chat(10)
    bench.until(lambda: bench.supervisor.copied_bytes)
    lags = []
    for i in range(4):
        bench.chat(5, seed=i)
        size, wrote = bench.log.stat().st_size, time.monotonic()
        bench.until(lambda size=size: bench.supervisor.copied_bytes >= size)
        lags.append(time.monotonic() - wrote)
    assert max(lags) < 1.0
    bench.finish()
    ends_well(bench)


def test_vanishes_in_mid_batch_and_returns(bench: Bench, tmp_path: Path) -> None:
    central = tmp_path / "central"
    bench.start(faulty=True)
    bench.chat(1000)
    bench.until(lambda: bench.supervisor.copied_bytes)
    central.rename(tmp_path / "away")
    bench.chat(1000, seed=1)
    bench.until(bench.warnings)
    assert not central.exists()
    (tmp_path / "away").rename(central)
    bench.chat(100, seed=2)
    bench.finish()
    ends_well(bench)


def test_a_stale_length_is_caught(bench: Bench) -> None:
    bench.set(faults=[{"op": "lseek_end", "file": "day", "nth": 0, "do": "stale", "times": 10**6}])
    bench.start(faulty=True)
    for i in range(6):
        bench.chat(5, seed=i)
        bench.run(0.4)
    bench.set()
    bench.finish()
    ends_well(bench)


def test_a_worker_stuck_while_it_holds_the_lock_is_killed(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other", tmp_path / "central", rig="rig-2")
    bench.set(faults=[{"op": "fsync", "file": "day", "nth": 0, "do": "hang"}])
    bench.start(faulty=True)
    bench.chat(10)
    bench.run(0.5)
    stuck = bench.supervisor.pids[0]
    other.start()
    other.chat(10)
    other.supervisor.finish_soon()
    for _ in range(500):
        bench.tick()
        other.tick()
        if other.supervisor.status().status == "verified":
            break
    assert other.supervisor.status().status == "verified"
    bench.until(lambda: stuck not in bench.supervisor.pids)
    bench.set()
    bench.finish()
    other.supervisor.stop()
    check_day(bench.job.day_log, bench, other)


def test_a_stopped_holder_holds_up_nobodys_own_copy(bench: Bench, tmp_path: Path) -> None:
    """The holder is a whole PC that sleeps: nobody kills its worker, the others wait and lose nothing."""
    other = Bench(tmp_path / "other", tmp_path / "central", rig="rig-2")
    bench.set(faults=[{"op": "fsync", "file": "day", "nth": 0, "do": "hang"}])
    bench.start(faulty=True)
    bench.chat(10)
    bench.run(0.5)
    other.start()
    other.chat(10)
    other.run(1.0)
    assert other.same()
    assert other.supervisor._latest["blocked"]
    assert other.supervisor.status().status == "pending"
    bench.set()
    bench.supervisor.stop()
    bench.mirror()
    other.finish()
    check_day(bench.job.day_log, bench, other)


def test_locks_that_always_succeed_leave_the_own_copies_unharmed(tmp_path: Path) -> None:
    (tmp_path / "central").mkdir()
    benches = [Bench(tmp_path / str(i), tmp_path / "central", rig=f"rig-{i}") for i in range(4)]
    for bench in benches:
        bench.set(locks="always")
        bench.start(faulty=True)
    for turn in range(3):
        for bench in benches:
            bench.chat(300, seed=turn)
        run_all(benches, 0.6)
    for bench in benches:
        bench.supervisor.finish_soon()
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and not all(b.supervisor.status().status == "verified" for b in benches):
        for bench in benches:
            bench.tick()
    for bench in benches:
        assert bench.supervisor.status().status == "verified", (bench.supervisor.status(), bench.supervisor._latest)
        bench.supervisor.stop()
        assert bench.same()
    for bench in benches:
        bench.mirror()
    check_day(benches[0].job.day_log, *benches)


@pytest.mark.parametrize("where", ["middle", "tail", "own last line"])
def test_zeroed_blocks_are_mended(bench: Bench, where: str) -> None:
    bench.start()
    bench.chat(400)
    bench.until(lambda: (bench.supervisor._latest.get("day") or 0) == bench.log.stat().st_size)
    day = bench.job.day_log
    data = bytearray(day.read_bytes())
    if where == "middle":
        data[8192:12288] = bytes(4096)
    elif where == "tail":
        data[-3000:] = bytes(3000)
    else:
        data[-20:-1] = bytes(19)
    with day.open("r+b") as stream:
        stream.write(data)
    bench.chat(50, seed=1)
    bench.finish()
    ends_well(bench)


def test_a_late_landing_over_anothers_lines_is_healed(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other", tmp_path / "central", rig="rig-2")
    other.chat(50, seed=3)
    other.mirror()
    bench.chat(50)
    bench.mirror()
    day = bench.job.day_log
    late = b"".join(format_line(line.key, line.offset, line.text) for line in day_lines(day)[other.job.key][5:12])
    with day.open("r+b") as stream:
        stream.seek(day.stat().st_size - 2500)
        stream.write(late)
    bench.chat(5, seed=9)
    other.chat(5, seed=9)
    bench.mirror()
    other.mirror()
    check_day(day, bench, other)


def test_hint_and_progress_are_found_again(bench: Bench) -> None:
    bench.chat(100)
    bench.mirror()
    bench.job.hint_path.unlink()
    bench.chat(100, seed=1)
    bench.mirror()
    ends_well(bench)


@pytest.mark.parametrize(
    "content",
    [
        b"2026-03-04 10:00:00,123 - INFO - Logging initialized\nunfinished",
        b"# what happened on this day\nunfinished",
        b"\0\1 a program's own format, without newline",
    ],
)
def test_a_foreign_days_log_is_left_alone(bench: Bench, content: bytes) -> None:
    day = bench.job.day_log
    day.parent.mkdir(parents=True)
    day.write_bytes(content)
    bench.chat(20)
    bench.mirror()
    assert day.read_bytes() == content
    check_day(day.with_name("launcher-2.log"), bench)


def test_plain_lines_of_the_old_launcher_stay(bench: Bench) -> None:
    bench.chat(20)
    bench.mirror()
    foreign = b"2026-03-04 10:00:00,123 - INFO - the old launcher\nTraceback (most recent call last):\n"
    with bench.job.day_log.open("ab") as stream:
        stream.write(foreign + b"2026-03-04 10:00:01,000 - INFO - cut sho")
    bench.chat(20, seed=1)
    bench.mirror()
    data = bench.job.day_log.read_bytes()
    assert foreign + b"2026-03-04 10:00:01,000 - INFO - cut sho\n" in data


ODD = {
    "crlf": b"crlf\r\nnext\r\n",
    "nul": b"nul \0 here\n\0\n",
    "not-utf8": b"\xff\xfe\x80 not utf-8\n",
    "no-newline": b"\n\n\nend",
    "long": b"x" * 300_000,
}


def test_odd_content_comes_through(make: Make) -> None:
    benches = make(ODD)
    for name, bench in benches.items():
        bench.start()
        bench.write(ODD[name][: len(ODD[name]) // 2])
    until_all(benches, lambda bench: bench.supervisor.copied_bytes)
    run_all(benches.values(), 1.2)
    for name, bench in benches.items():
        bench.write(ODD[name][len(ODD[name]) // 2 :])
    finish_all(benches)


def test_a_footer_after_an_unfinished_line(bench: Bench) -> None:
    """A crash leaves half a line; the mirror was finished; a later recovery completes the line and adds a footer."""
    bench.write(b"one\ntwo\nhalf a li")
    bench.mirror()
    bench.write(b"ne\nfooter\n")
    bench.mirror()
    ends_well(bench)


def test_a_torn_tail_of_another_is_cut(bench: Bench) -> None:
    bench.chat(5)
    bench.mirror()
    with bench.job.day_log.open("ab") as stream:
        stream.write(b"rig-7 mouse_7 12 0011aab")
    bench.chat(5, seed=1)
    bench.mirror()
    ends_well(bench)


def test_end_state_can_be_copied_again(bench: Bench) -> None:
    bench.chat(5)
    state = bench.log.parent / "end_state.json"
    state.write_text('{"mirror": "pending"}', encoding="utf-8")
    bench.start()
    bench.supervisor.finish_soon()
    bench.until(lambda: bench.supervisor.status().status == "verified")
    state.write_text('{"mirror": "verified"}', encoding="utf-8")
    bench.supervisor.finish_soon()
    assert bench.supervisor.status().status == "pending"
    bench.until(lambda: bench.supervisor.status().status == "verified")
    assert (bench.job.own_folder / "end_state.json").read_bytes() == state.read_bytes()


def test_a_worker_that_dies_is_replaced(bench: Bench) -> None:
    bench.start()
    bench.chat(10)
    bench.until(lambda: bench.supervisor.copied_bytes)
    for i in range(3):
        pids = bench.supervisor.pids
        os.kill(pids[0], 9)
        bench.chat(10, seed=i)
        bench.until(lambda pids=pids: bench.supervisor.pids and bench.supervisor.pids != pids)
    bench.finish()
    ends_well(bench)


def test_a_second_worker_waits_for_the_local_lock(bench: Bench) -> None:
    bench.chat(10)
    bench.start()
    bench.until(lambda: bench.supervisor.copied_bytes)
    second = Bench(Path(bench.job.state_directory).parent, Path(bench.job.mirror_directory or ""))
    second.start()
    second.supervisor.finish_soon()
    second.until(lambda: "another process" in second.supervisor.status().reason)
    assert second.supervisor.status().status == "pending"
    bench.supervisor.stop()
    second.until(lambda: second.supervisor.status().status == "verified")
    second.supervisor.stop()
    ends_well(bench)


def test_a_worker_goes_when_its_sidecar_dies(bench: Bench) -> None:
    import subprocess

    code = (
        "import sys, time; sys.path[:0] = [sys.argv[1]]\n"
        "from pytest_openscope.mirror.control import MirrorSupervisor\n"
        "from pytest_openscope.mirror.files import MirrorJob\n"
        "s = MirrorSupervisor(MirrorJob.from_json(sys.argv[2]), print)\n"
        "print(s.pids[0], flush=True)\n"
        "while True: s.tick(); time.sleep(0.05)\n"
    )
    bench.chat(10)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-I", "-c", code, root, bench.job.to_json()], stdout=subprocess.PIPE)
    assert process.stdout is not None
    worker = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdout.close()
    bench.mirror()
    ends_well(bench)
    deadline = time.monotonic() + 30
    while not has_ended(worker):  # it has let go of the mirror already, and is leaving
        assert time.monotonic() < deadline, worker
        time.sleep(0.01)


def test_a_worker_that_starts_slowly_is_waited_for(bench: Bench) -> None:
    """A virus scanner, or a busy computer, holds up the start for longer than a share may take: the next one's as well."""
    from pytest_openscope.mirror import MirrorSupervisor

    code = f"""
import sys, time
time.sleep({FAST.hang_s + 1})
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pytest_openscope.mirror.worker import main
main(sys.argv[1:])
"""
    bench.chat(100)
    bench.supervisor = MirrorSupervisor(bench.job, bench.say, FAST, [sys.executable, "-c", code])
    bench.until(lambda: bench.notices)
    assert "the mirror's process is not running yet" in bench.notices[0].text
    bench.until(lambda: "answers again" in bench.notices[-1].text, 60)
    ends_well(bench)


def test_a_share_is_silent_from_when_a_worker_listens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that took four seconds to start has not waited for the share yet."""
    from pytest_openscope.mirror import MirrorSupervisor, control

    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    process = SimpleNamespace(poll=lambda: None, pid=0)
    worker: Any = SimpleNamespace(process=process, reports=deque(), heard_mono=clock.now)
    worker.take_reports = partial(WorkerProcess.take_reports, worker)
    monkeypatch.setattr(control, "time", clock)
    monkeypatch.setattr(control, "WorkerProcess", lambda command: worker)
    supervisor = MirrorSupervisor(bench.job, bench.say)

    def told_until(now: float) -> list[str]:
        bench.notices.clear()
        while clock.now < now:
            clock.now += 0.1
            supervisor.tick()
        return [notice.text for notice in bench.notices]

    assert told_until(104.0) == []
    worker.reports.append((clock.now, {"state": "starting"}))
    assert told_until(106.5) == []
    (text,) = told_until(112.0)
    assert "the share does not answer" in text
    worker.reports.append((clock.now, {"state": "following", "copied": 10}))
    (text,) = told_until(114.0)
    assert "answers again" in text


def test_a_worker_that_starts_slowly_hides_no_fault_of_the_share(bench: Bench) -> None:
    """The operator is told first that it does not run yet, then, once, what is wrong with the share, then that it is back."""
    from pytest_openscope.mirror import MirrorSupervisor

    code = f"""
import sys, time
time.sleep({FAST.hang_s + 1})
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pytest_openscope.mirror.worker import main
main(sys.argv[1:])
"""
    central = Path(bench.job.mirror_directory)
    central.rmdir()
    central.write_text("a file where the folder should be", encoding="utf-8")
    bench.chat(100)
    bench.supervisor = MirrorSupervisor(bench.job, bench.say, FAST, [sys.executable, "-c", code])
    bench.until(lambda: len(bench.notices) == 2, 60)
    assert "the mirror's process is not running yet" in bench.notices[0].text
    assert "File exists" in bench.notices[1].text
    central.unlink()
    central.mkdir()
    bench.until(lambda: len(bench.notices) == 3, 60)
    assert "answers again" in bench.notices[2].text
    ends_well(bench)


def test_tuning_defaults_follow_the_scheme() -> None:
    from pytest_openscope.mirror.control import MirrorTuning

    assert (MirrorTuning().hang_s, MirrorTuning().start_s) == (10.0, 60.0)
    assert (MirrorTuning().retry_first_s, MirrorTuning().retry_most_s) == (1.0, 60.0)
    assert FAST.hang_s < MirrorTuning().hang_s
