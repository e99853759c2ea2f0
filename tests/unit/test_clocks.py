"""The computer's clocks: what is a jump, what a sleep, and what neither moves: who a process is, and which boot it is."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_openscope.log import SessionLog, read_log
from pytest_openscope.records import boot_is_same
from pytest_openscope.session.interrupts import Watchdog
from pytest_openscope.system import ClockChange, ClockWatch, awake_s, boot_id, clocks, create_time, elapsed_s, is_alive
from pytest_openscope.system.processes import start_of


class Computer:
    """Three clocks that run as told: the wall clock, time with and without sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.elapsed, self.awake = 1_800_000_000.0, 5000.0, 4000.0
        monkeypatch.setattr(ClockWatch, "_now", lambda watch: (self.wall, self.elapsed, self.awake))

    def run(self, seconds: float, rate: float = 1.0) -> None:
        self.wall += seconds * rate
        self.elapsed += seconds
        self.awake += seconds

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(monkeypatch)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 86400.0 * 365, -86400.0 * 365, 1.5, -1.5])
def test_a_jump_is_told_once(computer: Computer, jump_s: float) -> None:
    watch = ClockWatch()
    computer.run(10)
    assert watch.look() is None
    computer.run(0.5)
    computer.wall += jump_s
    assert watch.look() == ClockChange(jump_s)
    computer.run(1)
    assert watch.look() is None


def test_what_is_no_jump(computer: Computer) -> None:
    watch = ClockWatch()
    computer.run(5)
    computer.wall += 0.4
    assert watch.look() is None, "a time server corrected it by less than a second"
    # A leap second smeared over a day, looked at once a second, once a minute, and after hours without a record.
    for pause_s, times in ((1, 3000), (60, 300), (7200, 10)):
        for _ in range(times):
            computer.run(pause_s, 1 - 1 / 86400)
            assert watch.look() is None
    # A clock that is slewed as fast as Linux does it.
    for _ in range(100):
        computer.run(3600, 1 + 500e-6)
        assert watch.look() is None


def test_however_little_a_clock_goes_back_it_is_told(computer: Computer) -> None:
    """A leap second that is not smeared, or a time server's small step: the next record would be older than the last one."""
    watch = ClockWatch()
    computer.run(10.8)
    newest = computer.wall
    computer.wall -= 0.3
    assert watch.look(newest) == ClockChange(-0.3)
    assert watch.look(computer.wall) is None


def test_sleep_is_no_jump_and_both_may_come_together(computer: Computer) -> None:
    watch = ClockWatch()
    computer.sleep(3600)
    assert watch.look() == ClockChange(slept_s=3600)
    assert ClockChange(slept_s=3600).text == "the computer slept for 3600.0 s"
    computer.sleep(7200)
    computer.wall -= 50
    change = watch.look()
    assert change == ClockChange(-50, 7200)
    assert change.text == "the computer slept for 7200.0 s; the computer's clock was set back by 50.000 s"


def test_the_real_clocks_agree() -> None:
    """On every system: they run at one rate, sleep is no more than all, and no look at them tells a change."""
    watch, before = ClockWatch(), (elapsed_s(), awake_s())
    time.sleep(0.3)
    passed = elapsed_s() - before[0], awake_s() - before[1]
    assert watch.look() is None
    assert passed[0] > 0.2
    assert abs(passed[0] - passed[1]) < 0.2
    assert time.get_clock_info("monotonic").monotonic
    assert time.get_clock_info("monotonic").resolution <= 0.016
    other = subprocess.run(
        [sys.executable, "-c", "from pytest_openscope.system import awake_s; print(awake_s())"], capture_output=True, text=True
    )
    assert before[1] < float(other.stdout) < awake_s(), "deadlines are compared between processes"


# -- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_says_that_the_clock_was_set_before_the_first_record_with_the_new_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift_s, told = [0.0], []
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift_s[0])
    log = SessionLog()
    log.on_clock_change = lambda at, change: told.append((at, change.set_by_s))
    log.write("INFO", "lab", "while it waits in memory")
    log.open(tmp_path / "launcher.log")
    log.write("INFO", "lab", "one")
    shift_s[0] = -0.4
    log.write("INFO", "lab", "two")
    shift_s[0] = -7200
    log.write_output("acquisition.camera.stdout", [b"frame 1", b"frame 2"])
    log.write("INFO", "lab", "three")
    shift_s[0] = 7200
    log.write("INFO", "lab", "four")
    log.close()
    entries = list(read_log(tmp_path / "launcher.log"))
    clock = "pytest_openscope.clock"
    shown = [entry.message.split(" by ")[0].removeprefix("the computer's clock was ") for entry in entries]
    before = ["while it waits in memory", "one", "set back", "two", "set back", "frame 1", "frame 2", "three"]
    assert shown == [*before, "set forward", "four"]
    assert [round(change) for _, change in told] == [0, -7200, 14400]
    for earlier, later in itertools.pairwise(entries):
        assert later.timestamp >= earlier.timestamp or later.logger == clock


# -- processes and boots ----------------------------------------------------------------------------------------------


def test_a_process_stays_who_it_is_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reckons the time of boot, and psutil the start of a process, from the present clock."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = create_time(process.pid)
        assert started is not None
        if sys.platform == "linux":
            from psutil import _pslinux

            boot = _pslinux.boot_time()
            monkeypatch.setattr(_pslinux, "boot_time", lambda: boot - 3600)
            monkeypatch.setattr(_pslinux, "BOOT_TIME", boot - 3600, raising=False)
        assert is_alive(process.pid, started)
        assert create_time(process.pid) == started
        assert not is_alive(process.pid, started - 3600)
        assert not is_alive(process.pid, started + 3600)
        # An adapter of a lab gives what psutil tells.
        assert is_alive(process.pid, psutil.Process(process.pid).create_time())
        assert not is_alive(process.pid, psutil.Process(process.pid).create_time() - 3600)
    finally:
        process.communicate(b"\n")
    assert not is_alive(process.pid, started)
    with pytest.raises(psutil.NoSuchProcess):
        start_of(psutil.Process(process.pid))


def test_a_windows_that_tells_nothing_of_its_processes_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Wine psutil raises a plain OSError, which must not end the sidecar."""

    def refuse(process: psutil.Process) -> str:
        raise OSError(22, "[WinError 87] Invalid parameter")

    monkeypatch.setattr(psutil.Process, "name", refuse)
    assert clocks._start_of_windows() == ""
    monkeypatch.setattr(psutil.Process, "name", lambda process: "services.exe" if process.pid == os.getpid() else "other")
    assert clocks._start_of_windows().startswith("services.exe ")


def test_start_times_tell_processes_apart_as_finely_as_ever() -> None:
    first, second = create_time(os.getpid()), create_time(os.getppid())
    assert first is not None
    assert second is not None
    assert first >= second
    assert not is_alive(os.getpid(), second - 10)


def test_a_boot_is_known_by_its_name_and_without_one_by_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime

    at, mono = datetime.now().astimezone().isoformat(), time.monotonic()
    assert boot_id() == boot_id()
    if boot_id():
        assert boot_is_same(mono, "2001-01-01T00:00:00+00:00", boot_id()), "the clock was set since"
        assert not boot_is_same(mono, at, "another boot")
    assert boot_is_same(mono, at)
    assert not boot_is_same(mono, "2001-01-01T00:00:00+00:00")
    assert not boot_is_same(mono - 3600, at)
    assert not boot_is_same(mono, "no time")


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_a_deadline_does_not_pass_while_the_computer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows counts sleep in its monotonic clock; the step would be over its time in the moment of waking up."""
    from pytest_openscope.session import interrupts

    now = [100.0]
    monkeypatch.setattr(interrupts, "awake_s", lambda: now[0])
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 3600)
    told: list[float | None] = []
    dog = Watchdog(lambda text, spare: False, lambda text: None, lambda kill_at, what: told.append(kill_at), grace_s=10)
    dog.arm("step", 60, "too long")
    try:
        assert dog.overdue() == ""
        now[0] += 59
        assert dog.overdue() == ""
        now[0] += 2
        assert dog.overdue() == "too long"
    finally:
        dog.stop()
    assert told == [170.0]
