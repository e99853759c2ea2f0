"""Sessions whose computer's clock is set while they run, and computers that sleep."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from typing import Any

import psutil
import pytest
from clock_kit import SET_CLOCK, SettableClock, disorder
from share_kit import assert_mirrored, living_processes, mirror_status, processes_of, start, use_share

from pytest_openscope.log.lines import read_log

#: More than any session takes here, so that a duration by the wrong clock cannot pass for one by the right clock.
HOUR_S = 3600.0
CAMERA = '[sys.executable, "-u", "-c", "import time\\nfor n in range(40): print(n); time.sleep(0.02)"]'
ENDLESS = '[sys.executable, "-u", "-c", "import time\\nwhile True: print(1); time.sleep(0.02)"]'


@pytest.fixture
def clock(bench: Any, monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    if sys.platform == "win32":
        pytest.skip("LD_PRELOAD; tests/unit/test_clocks.py is about all systems")
    return SettableClock(bench.path, monkeypatch)


def tree_of(pid: int, bench: Any) -> list[int]:
    """Return the pids of an experiment and of all that works for it."""
    found = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    for process, line in living_processes():
        if str(bench.path) in line:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
    return sorted(found)


def clock_lines(bench: Any) -> list[str]:
    return [entry.message for entry in bench.log if entry.logger == "pytest_openscope.clock"]


def test_a_session_in_which_the_clock_is_set_back_and_forward(
    bench: Any, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENSCOPE_NO_SESSION_REPORT", raising=False)
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    bench.steps(
        SET_CLOCK
        + f"""
@pytest.mark.pre_acquisition
@pytest.mark.timeout(600)
def test_warm_up():
    set_clock(-3600)
    time.sleep(0.2)
    logging.info("an hour earlier")

@pytest.mark.acquisition
@pytest.mark.timeout(600)
def test_acquire(acquisition):
    run = acquisition.start(command={CAMERA}, timeout_s=300)
    set_clock(86400)
    assert run.wait().returncode == 0

@pytest.mark.post_acquisition
def test_save(experiment):
    set_clock(86400.5)
    experiment.note("half a second is no jump")
    set_clock(0.25)
    logging.info("and back")
"""
    )
    result = bench.run("--timeout=600")
    assert result.ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    end = bench.end
    assert end["outcome"] == "passed"
    assert disorder(bench.log) == []
    told = clock_lines(bench)
    assert [line.partition(" by ")[0].rpartition(" ")[2] for line in told] == ["back", "forward", "back"]
    assert [round(change["set_by_s"] / HOUR_S) for change in end["clock_changes"]] == [-1, 25, -24]
    result.stdout.fnmatch_lines(["clock: the computer's clock was set back by 36*", "clock: *forward by*"])
    # Everything that says how long it took.
    times_s = [end["duration_s"], *(step["duration_s"] for step in end["steps"]), end["acquisitions"][0]["duration_s"]]
    assert all(0 <= took_s < HOUR_S / 2 for took_s in times_s), times_s
    (footer,) = (entry.message for entry in bench.log if " stopped " in entry.message and entry.message.startswith("session "))
    assert float(footer.split()[-2]) < HOUR_S / 2
    assert mirror_status(bench.folder) == "verified"
    assert_mirrored(share, ("bench", bench.folder))
    pytest.importorskip("bokeh", reason="the extra 'report' is not installed")
    page = bench.wait_for(lambda: (bench.folder / "session_report.html").read_text(encoding="utf-8"), 60)
    assert "the computer&#39;s clock was set back by" in page


def test_deadlines_of_a_session_whose_clock_was_set_back_pass_in_time(bench: Any, clock: SettableClock) -> None:
    """A day earlier: by the wall clock the step would have a day more."""
    bench.steps(
        SET_CLOCK
        + f"""
@pytest.mark.acquisition
@pytest.mark.timeout(1)
def test_acquire():
    set_clock(-86400)
    time.sleep(300)

@pytest.mark.post_acquisition
def test_run(acquisition):
    set_clock(-2 * 86400)
    acquisition.run(command={ENDLESS}, timeout_s=1)
"""
    )
    assert bench.run().ret == 1
    bench.wait_for(lambda: not processes_of(bench.path))
    assert bench.outcomes() == {"test_acquire": "timeout", "test_run": "timeout"}
    assert disorder(bench.log) == []
    assert bench.debug["kind"] == "timeout"


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_crash_after_the_clock_was_set(bench: Any, clock: SettableClock, hours: int) -> None:
    """The sidecar knows that it is the same boot: it stops the acquisition, and says how long the session ran."""
    bench.steps(
        SET_CLOCK
        + f"""
@pytest.mark.acquisition
def test_acquire(acquisition):
    run = acquisition.start(command={ENDLESS})
    logging.info("before")
    set_clock({hours * HOUR_S})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert bench.run().ret == -signal.SIGKILL
    bench.wait_for(lambda: bench.end["outcome"] == "crashed")
    bench.wait_for(lambda: not processes_of(bench.path))
    assert disorder(bench.log) == []
    assert bool(clock_lines(bench)) == (hours < 0)
    assert re.search(r"stopped python\S*: ", bench.messages)
    assert bench.end["duration_s"] < HOUR_S / 2
    assert bench.end["steps"][0]["duration_s"] < HOUR_S / 2


def test_a_recovery_after_the_clock_was_set(bench: Any, clock: SettableClock) -> None:
    """Experiment and sidecar are killed; when the next session finishes theirs, the clock is a day behind."""
    bench.steps(
        f"""
@pytest.mark.acquisition
def test_acquire(acquisition):
    acquisition.start(command={ENDLESS})
    open("ready", "w").close()
    if not os.path.exists("second"): time.sleep(300)
"""
    )
    process = start(bench)
    bench.wait_for((bench.path / "ready").exists)
    (first,) = bench.folders
    witness = first / "launcher_metadata" / "witness.jsonl"
    bench.wait_for(lambda: "sidecar_started" in witness.read_text(encoding="utf-8"))
    sidecar = json.loads(witness.read_text(encoding="utf-8").splitlines()[0])["pid"]
    # Stopped first: it must not see the experiment die, which must not start another one.
    os.kill(sidecar, signal.SIGSTOP)
    process.kill()
    process.wait()
    os.kill(sidecar, signal.SIGKILL)
    clock.set(-24 * HOUR_S)
    (bench.path / "second").touch()
    assert bench.run().ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    log = (first / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")
    assert "set back since the line before, by 8" in log
    assert re.search(r"stopped python\S*: ", log)
    end = json.loads((first / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))
    assert end["outcome"] == "crashed"
    assert len(set(bench.folders)) == 2


def test_sessions_in_the_hour_that_comes_twice(bench: Any, clock: SettableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of summer time local times go back by an hour: names stay unique, and a log's times tell their offset."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    # 03:00 of summer time, which is 02:00 again, in 2026.
    change = 1792890000
    bench.steps(
        SET_CLOCK
        + f"""
def test_acquire():
    if os.path.exists("over_the_change"):
        set_clock({change} - 0.3 - true_time())
        logging.info("summer")
        while time.time() < {change}: time.sleep(0.01)
        logging.info("winter")
"""
    )
    clock.set(change - 1800 - time.time())
    assert bench.run().ret == 0
    (first,) = bench.folders
    clock.set(change + 1800 - time.time())
    bench.write("over_the_change", "")
    assert bench.run().ret == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    (second,) = set(bench.folders) - {first}
    assert {name[:-6] for name in (first.name, second.name)} == {"mouse7_2026-10-25_02"}
    log = list(read_log(second / "launcher_metadata" / "launcher.log"))
    assert disorder(log) == []
    at = {entry.message: entry.timestamp for entry in log}
    assert (at["winter"] - at["summer"]).total_seconds() < 60
    assert [str(at[name].utcoffset()) for name in ("summer", "winter")] == ["2:00:00", "1:00:00"]
    assert sum(entry.logger == "pytest_openscope.clock" for entry in log) == 1, "another offset is no other time"


def test_a_process_tree_that_slept(bench: Any) -> None:
    """Stopped as a whole and continued, as by hibernation: nothing is taken for dead, nothing is killed, no line is lost."""
    share = use_share(bench, bench.path / "share")
    share.mkdir()
    bench.steps(
        f"""
@pytest.mark.acquisition
def test_acquire(acquisition):
    run = acquisition.start(command={ENDLESS}, timeout_s=600)
    open("ready", "w").close()
    while not os.path.exists("go"): time.sleep(0.01)
    run.stop()
"""
    )
    process = start(bench, "--timeout=600", "--param", "grace_s=1")
    bench.wait_for((bench.path / "ready").exists)
    bench.wait_for(lambda: (bench.folder / "launcher_metadata" / "witness.jsonl").exists())
    # Experiment, program, sidecar and mirror worker, which comes last.
    bench.wait_for(lambda: len(tree_of(process.pid, bench)) >= 4)
    sleepers = tree_of(process.pid, bench)
    for pid in sleepers:
        psutil.Process(pid).suspend()
    time.sleep(4)  # longer than the sidecar's grace period, and than it lets a process be silent
    for pid in reversed(sleepers):
        psutil.Process(pid).resume()
    (bench.path / "go").touch()
    assert process.wait(100) == 0
    bench.wait_for(lambda: not processes_of(bench.path))
    assert bench.end["outcome"] == "passed"
    assert bench.end["helper_failures"] == []
    assert disorder(bench.log) == []
    assert_mirrored(share, ("bench", bench.folder))
