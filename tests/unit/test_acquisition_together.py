"""Several acquisitions at once: started together, each with its own log, limits and verdict, stopped in a declared order."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bonsai_kit import SOUND, StandIn

from pytest_openscope.acquisition import (
    Acquisition,
    AcquisitionFailed,
    AcquisitionSpec,
    AcquisitionTimeout,
    check_parameters,
    describe_command,
    together,
)
from pytest_openscope.system import StopPolicy

#: Says that it is up, and on Ctrl-C takes 0.2 s to close its file, as a recorder does.
RECORDER = """
import os, signal, sys, time
if sys.platform == "win32":  # where it is asked by CTRL_BREAK, which interrupts no sleep
    signal.signal(signal.SIGBREAK, signal.default_int_handler)
def say(word):
    with open(os.path.join(os.environ["OUTPUT_FOLDER"], "diary"), "a") as diary:
        diary.write(f"{sys.argv[1]} {word}\\n")
try:
    say("up")
    print(sys.argv[1], "records", flush=True)
    ends = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 60)
    while time.monotonic() < ends:
        time.sleep(0.02)
    say("ends")
except KeyboardInterrupt:
    say("asked")
    time.sleep(0.2)
    say("closed")
"""


def recorder(name: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
    command = [sys.executable, "-u", "-c", RECORDER, name, *([seconds] if seconds is not None else [])]
    return {"command": command, "name": name, **more}


def when(condition: str, code: str) -> list[str]:
    """A command that waits until the diary has so many lines, and then runs the code."""
    wait = f"""
import os, time, sys
diary = os.path.join(os.environ["OUTPUT_FOLDER"], "diary")
while not os.path.exists(diary) or not ({condition})(open(diary).read()):
    time.sleep(0.01)
{code}
"""
    return [sys.executable, "-u", "-c", wait]


def all_up(count: int) -> str:
    return f"lambda text: text.count(' up') >= {count}"


class Host:
    """A session's part."""

    def __init__(self, folder: Path, answers: Sequence[str | None] = (), **changes: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.lines: list[tuple[str, str]] = []
        self.saved: dict[str, Any] = {}
        self.asked: list[str] = []
        self._answers = list(answers)
        services = {"ask": self._ask, "save": self.saved.__setitem__}
        self.acquisition = Acquisition(
            folder,
            lambda source, lines, *_: self.lines.extend((source, line.decode()) for line in lines),
            lambda *_, **__: None,
            defaults=AcquisitionSpec(stop=StopPolicy(3.0, 0.5, 1.0)),
            services=services,
            **changes,
        )

    def _ask(self, question: str, choices: Sequence[str], default: str) -> str | None:
        self.asked.append(question)
        return self._answers.pop(0) if self._answers else None

    @property
    def diary(self) -> list[str]:
        return (self.folder / "diary").read_text().splitlines()

    @property
    def order(self) -> list[str]:
        """What was asked to stop and closed, in order."""
        return [line for line in self.diary if not line.endswith(" up")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "s")


def closed_in_order(*names: str) -> list[str]:
    return [f"{name} {word}" for name in names for word in ("asked", "closed")]


def test_they_run_at_once_each_with_a_log_of_its_own(host: Host) -> None:
    # Each waits until all three are up: one after the other they would never end.
    waiting = [{"command": when(all_up(3), f"print('{name} done')"), "name": name} for name in ("camera", "ephys")]
    starters = [recorder(str(number), 0.1) for number in range(3)]
    facts = host.acquisition.run_all([*waiting, *starters])
    assert [one.name if one else None for one in facts] == ["camera", "ephys", "0", "1", "2"]
    assert all(one is not None and one.returncode == 0 for one in facts)
    assert ("camera.stdout", "camera done") in host.lines
    files = sorted(path.name for path in (host.folder / "launcher_metadata" / "acquisition").iterdir())
    assert files == sorted(
        f"{name}.{stream}.log" for name in ("camera", "ephys", "0", "1", "2") for stream in ("stdout", "stderr")
    )


def test_when_one_fails_the_others_are_stopped_in_the_declared_order(host: Host) -> None:
    fails = {"command": when(all_up(3), "sys.exit(4)"), "name": "stimulus"}
    with pytest.raises(AcquisitionFailed, match="'stimulus' ended with exit code 4"):
        host.acquisition.run_all([recorder("a"), fails, recorder("b"), recorder("c")], stop_order=["b", "stimulus", "c"])
    assert host.order == closed_in_order("b", "c", "a")
    reasons = {one.name: one.stop_reason for one in host.acquisition.finished}
    assert reasons == {"stimulus": "", **dict.fromkeys("abc", "acquisition 'stimulus' failed")}
    assert not host.acquisition.active


def test_without_an_order_the_last_started_is_stopped_first(host: Host) -> None:
    fails = {"command": when(all_up(3), "sys.exit(4)"), "name": "stimulus"}
    with pytest.raises(AcquisitionFailed):
        host.acquisition.run_all([fails, recorder("a"), recorder("b"), recorder("c")])
    assert host.order == closed_in_order("c", "b", "a")


def test_one_that_is_killed_stops_the_others(host: Host) -> None:
    kills = {"command": when(all_up(1), "os.kill(os.getpid(), 9)"), "name": "ephys"}
    with pytest.raises(AcquisitionFailed, match=r"'ephys' (was killed by SIGKILL|ended with exit code 9)"):
        host.acquisition.run_all([recorder("camera"), kills])
    assert host.order == closed_in_order("camera")


def test_one_that_does_not_start_stops_those_that_did(host: Host) -> None:
    with pytest.raises(AcquisitionFailed, match="'gone' did not start"):
        host.acquisition.run_all([recorder("camera"), {"command": ["no-such-program"], "name": "gone"}])
    assert not host.acquisition.active
    assert [one.name for one in host.acquisition.finished] == ["gone", "camera"]


def test_each_has_limits_of_its_own(host: Host) -> None:
    with pytest.raises(AcquisitionTimeout, match=r"'short' was stopped: it ran longer than timeout_s = 0\.5 s"):
        host.acquisition.run_all([recorder("long", timeout_s=50), recorder("short", timeout_s=0.5)])
    assert "long asked" in host.diary


def test_a_second_failure_is_told_too(host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_LOOK_S", 60.0)  # so that both have ended when the first one is looked at
    first = {"command": when(all_up(1), "time.sleep(0.5); sys.exit(4)"), "name": "first"}
    second = {
        "command": [sys.executable, "-c", f"open({str(host.folder / 'diary')!r}, 'w').write('x up'); raise SystemExit(5)"]
    }
    with pytest.raises(AcquisitionFailed, match="'first' ended with exit code 4"):
        host.acquisition.run_all([first, {**second, "name": "second"}])
    assert "acquisition 'second' ended with exit code 5, too" in caplog.text


def test_in_the_background_it_runs_as_long_as_the_others(host: Host) -> None:
    facts = host.acquisition.run_all(
        [recorder("camera", background=True), {"command": when(all_up(1), ""), "name": "stimulus"}]
    )
    assert host.order == closed_in_order("camera")
    assert facts[0] is not None
    assert facts[0].stop_reason == "the others have ended"


def test_a_verdict_on_one_in_the_background(tmp_path: Path, rig: dict[str, Any]) -> None:
    host = Host(tmp_path / "s", answers=["proceed"])
    rig["bonsai"].faults("no-outputs", "hang")
    rig["bonsai_max_retries"] = None
    (rig["folder"] / "ephys.py").write_text("import time; time.sleep(1.0)")
    rig["acquisitions"] = [{**rig["acquisitions"][1], "background": True}, rig["acquisitions"][2]]
    host.acquisition.run_parameters(rig)
    assert ["'video' failed: CsvWriter" in question for question in host.asked] == [True]


def test_an_end_in_the_background_is_a_failure(host: Host) -> None:
    with pytest.raises(AcquisitionFailed, match="'camera' ended before the others"):
        host.acquisition.run_all([recorder("camera", 0, background=True), recorder("stimulus")])


def test_a_stop_that_is_asked_for_stops_all_in_order(host: Host) -> None:
    def stop() -> None:
        _until(lambda: all_known(host, 3))
        host.acquisition.stop_all("Ctrl-C", wait=False)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(AcquisitionFailed, match="'b' was stopped: Ctrl-C"):
        host.acquisition.run_all([recorder("a"), recorder("b"), recorder("c")], stop_order=["b", "c", "a"])
    stopper.join()
    assert host.order == closed_in_order("b", "c", "a")


def test_the_end_of_the_session_stops_all_in_order(host: Host) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            host.acquisition.run_all([recorder("a"), recorder("b"), recorder("c")], stop_order=["b"])
        except AcquisitionFailed as error:
            failed.append(error)

    step = threading.Thread(target=run)
    step.start()
    _until(lambda: all_known(host, 3))
    assert host.acquisition.longest_stop_s == 3 * 4.5
    host.acquisition.stop_all("the session ends")
    step.join()
    assert host.order == closed_in_order("b", "c", "a")
    assert len(failed) == 1


def test_a_keyboard_interrupt_stops_all_in_order(host: Host) -> None:
    def interrupt() -> None:
        _until(lambda: all_known(host, 2))
        if sys.platform == "win32":
            _thread.interrupt_main()  # a signal that a process of Windows sends to itself ends it
        else:
            os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        host.acquisition.run_all([recorder("a"), recorder("b")], stop_order=["a", "b"])
    stopper.join()
    assert host.order == closed_in_order("a", "b")


def all_known(host: Host, count: int) -> bool:
    """All are up, and the session's side knows of each: a child can be up before its start has returned there."""
    up = (host.folder / "diary").exists() and len(host.diary) == count
    return up and host.acquisition.longest_stop_s == count * 4.5


def _until(ready: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not ready() and time.monotonic() < deadline_s:
        time.sleep(0.005)


def test_what_cannot_be_run_together(host: Host) -> None:
    with pytest.raises(ValueError, match="none of the acquisitions is called cam"):
        host.acquisition.run_all([recorder("camera", 0)], stop_order=["cam"])
    with pytest.raises(ValueError, match="all acquisitions run in the background"):
        host.acquisition.run_all([recorder("camera", 0, background=True)])
    assert host.acquisition.run_all([]) == []


def test_a_dry_run_runs_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host = Host(tmp_path / "s", dry_run=True)
    facts = host.acquisition.run_all([recorder("camera", background=True), recorder("stimulus"), ["ffmpeg", "-i", "x"]])
    assert [one.name if one else "" for one in facts] == ["camera", "stimulus", "ffmpeg"]
    assert sorted(one.name for one in host.acquisition.finished) == ["camera", "ffmpeg", "stimulus"]
    assert not (host.folder / "diary").exists()


# With adapters, as a parameter file has them -------------------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path) -> dict[str, Any]:
    """Parameters of two Bonsai workflows and a Python script."""
    bonsai = StandIn(tmp_path / "bonsai")
    for name in ("stimulus", "video"):
        (tmp_path / f"{name}.bonsai").write_text(SOUND, encoding="utf-8")
    (tmp_path / "ephys.py").write_text("print('spikes')", encoding="utf-8")
    flows = [
        {
            "launcher": "bonsai",
            "name": name,
            "script_path": str(tmp_path / f"{name}.bonsai"),
            "script_parameters": {"events_path": f"{name}.csv"},
        }
        for name in ("stimulus", "video")
    ]
    return {
        "bonsai_exe_path": str(bonsai.exe),
        "bonsai_max_retries": 0,
        "folder": tmp_path,
        "bonsai": bonsai,
        "acquisitions": [*flows, {"launcher": "python", "name": "ephys", "script_path": str(tmp_path / "ephys.py")}],
    }


def test_adapters_run_together(host: Host, rig: dict[str, Any]) -> None:
    facts = host.acquisition.run_parameters(rig)
    assert [one.name if one else "" for one in facts] == ["stimulus", "video", "ephys"]
    assert ("ephys.stdout", "spikes") in host.lines
    assert sorted(host.saved) == ["bonsai_provenance.stimulus.json", "bonsai_provenance.video.json"]
    assert (host.folder / "stimulus.csv").is_file()
    assert (host.folder / "video.csv").is_file()


def test_each_has_a_verdict_of_its_own(host: Host, rig: dict[str, Any]) -> None:
    rig["bonsai"].faults("no-outputs")
    rig["acquisitions"][0]["bonsai_check_outputs"] = False
    with pytest.raises(AcquisitionFailed, match=r"acquisition 'video' failed: .* has left no video\.csv"):
        host.acquisition.run_parameters(rig)


def test_a_retry_runs_all_of_them_again(tmp_path: Path, rig: dict[str, Any]) -> None:
    host = Host(tmp_path / "s", answers=["retry"])
    script = tmp_path / "ephys.py"
    script.write_text("import time; print('up', flush=True); time.sleep(0 if __import__('os').path.exists('again') else 60)")
    rig["acquisitions"] = [rig["acquisitions"][2], rig["acquisitions"][0]]
    rig["bonsai"].faults("fatal:1")
    rig["bonsai_max_retries"] = None
    asked = host._ask

    def ask(*question: Any) -> str | None:
        assert not host.acquisition.active  # all are stopped before anybody is asked
        script.write_text("print('again')")
        return asked(*question)

    host.acquisition._services["ask"] = ask
    facts = host.acquisition.run_parameters(rig)
    assert [one.name if one else "" for one in facts] == ["ephys[2]", "stimulus[2]"]
    assert len(host.asked) == 1


def test_limits_of_one_entry(host: Host, rig: dict[str, Any]) -> None:
    (rig["folder"] / "ephys.py").write_text("import time; time.sleep(60)")
    rig["acquisitions"] = [{**rig["acquisitions"][2], "acquisition_timeout_s": "300ms"}]
    with pytest.raises(AcquisitionTimeout, match=r"timeout_s = 0\.3 s"):
        host.acquisition.run_parameters(rig)


def test_the_check_looks_at_each_and_names_its_place(rig: dict[str, Any]) -> None:
    assert check_parameters(rig, True) == []
    rig["acquisitions"][1]["script_parameters"] = {"events_pat": "x"}
    rig["acquisitions"][2]["script_path"] = "gone.py"
    errors = check_parameters(rig, False, "day1.json")
    assert [error.key for error in errors] == ["acquisitions.1.script_parameters", "acquisitions.2.script_path"]
    assert "did you mean events_path?" in errors[0].remedy
    del rig["bonsai_exe_path"]
    assert [error.key for error in check_parameters(rig, True)][:2] == [
        "acquisitions.0.bonsai_exe_path",
        "acquisitions.1.bonsai_exe_path",
    ]
    assert (
        describe_command(
            {"acquisitions": [{"launcher": "command", "command": "a b"}, {"launcher": "command", "command": "c"}]}, Path()
        )
        == "a b; c"
    )
