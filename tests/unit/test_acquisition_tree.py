"""Stopping trees from a process that is not the parent, and sparing those that are not ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from pytest_openscope.system import process_tree as tree
from pytest_openscope.system.process_tree import MARK_FOLDER, MARK_NAME, ProcessTree, StopPolicy

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="process groups and signals of POSIX")
QUICK = StopPolicy(graceful_s=0.6, terminate_s=0.4, kill_s=2.0)
SLEEP = "import time; print('up', flush=True); time.sleep(60)"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(code: str, **arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code]
        if sys.platform == "win32":
            arguments["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **arguments)  # type: ignore[call-overload]
        processes.append(process)
        assert process.stdout.readline()
        return process  # type: ignore[no-any-return]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def created(process: subprocess.Popen[bytes]) -> float:
    return psutil.Process(process.pid).create_time()


def test_a_gentle_request_is_enough(start: Start) -> None:
    process = start(SLEEP)
    report = ProcessTree(process.pid, created(process)).stop(StopPolicy(graceful_s=30.0, terminate_s=1.0, kill_s=2.0))
    assert report.request == "graceful"
    assert any(f"(pid {process.pid})" in text for text in report.stopped)
    assert report.survivors == ()


def test_without_grace_it_is_terminated(start: Start) -> None:
    process = start(SLEEP)
    assert ProcessTree(process.pid, created(process)).stop(QUICK, graceful=False).request == "terminate"
    assert process.wait() == (-15 if sys.platform != "win32" else 15)


@posix_only
def test_one_that_ignores_everything_is_killed(start: Start) -> None:
    process = start("import signal\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\n" + SLEEP)
    started = time.monotonic()
    assert ProcessTree(process.pid, created(process)).stop(QUICK).request == "kill"
    assert 0.9 < time.monotonic() - started < 30
    assert process.wait() == -9


def test_a_stopped_process_is_ended_too(start: Start) -> None:
    process = start(SLEEP)
    psutil.Process(process.pid).suspend()
    assert ProcessTree(process.pid, created(process)).stop(QUICK).request == "terminate"


def test_a_recycled_pid_is_spared(start: Start) -> None:
    process = start(SLEEP, start_new_session=True)
    report = ProcessTree(process.pid, created(process) - 60, pgid=process.pid).stop(QUICK)
    assert report == tree.StopReport()
    assert process.poll() is None


def test_a_dead_process_leaves_nothing_to_do(start: Start) -> None:
    process = start("print('up')")
    at = created(process)
    process.wait()
    assert ProcessTree(process.pid, at, pgid=process.pid).stop(QUICK) == tree.StopReport()


ORPHAN = """import os, sys, time
if os.fork() == 0:
    {leave}
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep({alive_s})
"""


@posix_only
@pytest.mark.parametrize("leave", ["pass", "os.setpgid(0, 0)"])
def test_the_group_finds_orphans_of_a_dead_parent(start: Start, leave: str) -> None:
    process = start(ORPHAN.format(leave=leave, alive_s=0.2), start_new_session=True)
    at = created(process)
    process.wait()
    assert len(ProcessTree(process.pid, at, pgid=process.pid).find()) == 1
    assert len(ProcessTree(process.pid, at, pgid=process.pid).stop(QUICK).stopped) == 1
    assert ProcessTree(process.pid, at, pgid=process.pid).find() == []


@posix_only
def test_the_mark_finds_daemons_of_this_acquisition_only(start: Start) -> None:
    def daemon(folder: str, name: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, MARK_FOLDER: folder, MARK_NAME: name}
        return start(ORPHAN.format(leave="os.setsid()", alive_s=0.2), env=environ, start_new_session=True)

    mark = f"/sessions/{os.getpid()}"
    ours, other, elsewhere = daemon(mark, "camera"), daemon(mark, "laser"), daemon(mark + "0", "camera")
    at = created(ours)
    for process in (ours, other, elsewhere):
        process.wait()
    assert ProcessTree(ours.pid, at, pgid=ours.pid).find() == []
    report = ProcessTree(ours.pid, at, pgid=ours.pid, session_mark=mark, name="camera").stop(QUICK)
    assert len(report.stopped) == 1
    assert len(ProcessTree(ours.pid, at, session_mark=mark).stop(QUICK).stopped) == 1
    assert len(ProcessTree(ours.pid, at, session_mark=mark + "0").stop(QUICK).stopped) == 1


@posix_only
def test_children_born_while_it_stops_are_stopped_too(start: Start) -> None:
    code = """import signal, subprocess, sys, time
def more(*_):
    subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)
signal.signal(2, more); signal.signal(15, more)
print('up', flush=True)
while True: time.sleep(0.1)
"""
    process = start(code, start_new_session=True)
    report = ProcessTree(process.pid, created(process), pgid=process.pid).stop(QUICK)
    assert len(report.stopped) >= 2
    assert report.survivors == ()
    assert ProcessTree(process.pid, None, pgid=process.pid).find() == []


def test_what_may_not_be_stopped_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(SLEEP)

    def denied(self: psutil.Process, *_: object) -> None:
        raise psutil.AccessDenied(self.pid)

    for method in ("send_signal", "terminate", "kill"):
        monkeypatch.setattr(psutil.Process, method, denied)
    report = ProcessTree(process.pid, created(process)).stop(StopPolicy(0.1, 0.1, 0.1))
    assert report.stopped == ()
    assert report.survivors
    assert all(text.endswith("permission denied") for text in report.survivors), "its console, too, is a process on Windows"


@pytest.mark.parametrize("method", ["name", "ppid", "children", "environ", "cmdline"])
def test_what_the_system_does_not_tell_of_a_process_does_not_save_it(
    method: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows psutil passes on errors of the system as they are."""
    process = start(SLEEP)
    started = created(process)

    def fails(self: psutil.Process, *_: object, **__: object) -> None:
        raise OSError(22, "Invalid parameter: '(originated from NtQuerySystemInformation)'")

    monkeypatch.setattr(psutil.Process, method, fails)
    report = ProcessTree(process.pid, started, session_mark="nobody's").stop(QUICK)
    assert report.survivors == ()
    assert process.wait() != 0
    assert [text for text in report.stopped if f"pid {process.pid})" in text or text == f"pid {process.pid}"]


def test_it_never_stops_itself() -> None:
    group = os.getpgid(0) if sys.platform != "win32" else None
    assert os.getpid() not in [process.pid for process in ProcessTree(os.getpid(), None, pgid=group).find()]
