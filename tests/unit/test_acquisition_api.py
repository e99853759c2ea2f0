"""What the ``acquisition`` fixture offers, for real and in dry runs with and without faults."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.acquisition import (
    Acquisition,
    AcquisitionFailed,
    AcquisitionSpec,
    AcquisitionTimeout,
    Fault,
    parse_fault,
)
from pytest_openscope.acquisition.spec import name_of_command
from pytest_openscope.records.record import AcquisitionFacts
from pytest_openscope.system.process_tree import StopPolicy

Make = Callable[..., Acquisition]
DEFAULTS = AcquisitionSpec(stop=StopPolicy(0.5, 0.5, 2.0))


@pytest.fixture
def lines() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
def make(tmp_path: Path, lines: list[tuple[str, bytes]]) -> Make:
    folder = tmp_path / "mouse_2025-01-01_10-00-00"
    folder.mkdir()

    def sink(source: str, new: list[bytes], raw_from: int, raw_to: int) -> None:
        lines.extend((source, line) for line in new)

    def make(**arguments: Any) -> Acquisition:
        return Acquisition(folder, sink, lambda *_, **__: None, **{"defaults": DEFAULTS, **arguments})

    return make


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def test_run_returns_the_facts_and_registers_them(make: Make, lines: list[tuple[str, bytes]]) -> None:
    registry: list[AcquisitionFacts] = []
    acquisition = make(on_ended=registry.append)
    facts = acquisition.run(python("print('hi')"), name="camera")
    assert facts.returncode == 0
    assert lines == [("camera.stdout", b"hi")]
    assert registry == acquisition.finished == [facts]
    assert acquisition.active == []


def test_check_false_returns_a_failure(make: Make) -> None:
    assert make().run(python("raise SystemExit(3)"), check=False).returncode == 3


@pytest.mark.parametrize(
    "interpreter", ["python", "/venv/bin/python3", "python3.13t", r"C:\Lab PC\.venv\Scripts\pythonw.exe", "py"]
)
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-u", "/data/stim one.py", "--n", "3"], "stim one"),
        (["-W", "error", "-X", "dev", r"C:\lab\stim.py"], "stim"),
        (["-m", "lab.stim", "x.py"], "lab.stim"),
        (["-c", "print()", "x.py"], "python"),
        (["-", "x.py"], "python"),
        ([], "python"),
    ],
)
def test_an_acquisition_is_named_after_what_it_runs(interpreter: str, arguments: list[str], name: str) -> None:
    assert name_of_command([interpreter, *(["-3"] if interpreter == "py" else []), *arguments]) == name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ([], ""),
        ([r"C:\Bonsai\Bonsai.exe", r"wf\Main.bonsai", "--start"], "Main"),
        (["bonsai"], "bonsai"),
        (["/opt/ffmpeg-7.1", "-i", "clip.py"], "ffmpeg-7.1"),
        (["DAQ.EXE"], "DAQ"),
    ],
)
def test_other_programs_have_their_own_name(command: list[str], name: str) -> None:
    assert name_of_command(command) == name


def test_a_run_has_the_name_that_it_is_given(make: Make) -> None:
    assert make().run(python("")).name == "python"
    assert make().run(python(""), name="camera").name == "camera"


def test_run_start_and_running_take_the_same(make: Make, tmp_path: Path) -> None:
    signatures = [inspect.signature(one).parameters for one in (Acquisition.run, Acquisition.start, Acquisition.running)]
    assert [name for name in signatures[0] if name != "check"] == list(signatures[1]) == list(signatures[2])
    given: dict[str, Any] = {"timeout_s": 30, "cwd": tmp_path, "env": {"A": "1"}, "name": "camera", "stderr_fails": False}
    code = "import os; print(os.getcwd(), os.environ['A'])"
    acquisition = make()
    assert acquisition.run(python(code), **given).stdout_tail == [f"{tmp_path} 1"]
    with acquisition.start(python(code + "; import time; time.sleep(60)"), **given) as camera:
        assert camera.poll() is None
    assert camera.done
    handle = acquisition.start(python("raise SystemExit(3)"))
    with pytest.raises(AcquisitionFailed, match="exit code 3"):
        handle.wait()


def test_running_is_stopped_at_the_end_of_the_block(make: Make) -> None:
    acquisition = make()
    with acquisition.running(python("import time; time.sleep(60)")) as process:
        assert process.poll() is None
        assert acquisition.active == [process]
    assert process.done
    assert acquisition.finished[0].stop_reason == "the step no longer needs it"


def test_running_fails_for_what_had_failed_before(make: Make) -> None:
    with pytest.raises(AcquisitionFailed, match="exit code 3"), make().running(python("raise SystemExit(3)")) as process:  # noqa: PT012
        while process.poll() is None:
            time.sleep(0.01)


def test_running_fails_once_for_one_failure(make: Make) -> None:
    with make().running(python("raise SystemExit(3)")) as process, pytest.raises(AcquisitionFailed):
        process.wait()


def test_running_keeps_the_steps_own_error(make: Make) -> None:
    acquisition = make()
    with pytest.raises(KeyError), acquisition.running(python("import time; time.sleep(60)")):
        raise KeyError("mouse")
    assert acquisition.active == []
    assert "KeyError" in acquisition.finished[0].stop_reason


def test_running_may_stop_it_itself(make: Make) -> None:
    with make().running(python("import time; time.sleep(60)"), timeout_s=30) as process:
        process.stop("enough frames")
        assert process.done


def test_running_into_its_limit_fails(make: Make) -> None:
    acquisition = make()
    with pytest.raises(AcquisitionTimeout), acquisition.running(python("import time; time.sleep(60)"), timeout_s=0.2):  # noqa: PT012
        while acquisition.active:
            time.sleep(0.01)


def test_a_stop_from_elsewhere_ends_run_as_a_failure(make: Make) -> None:
    acquisition = make()
    timer = threading.Timer(0.4, acquisition.stop_all, ("session timeout",), {"wait": False})
    timer.start()
    with pytest.raises(AcquisitionFailed, match="was stopped: session timeout"):
        acquisition.run(python("import time; time.sleep(60)"))


def test_stop_all_stops_at_once(make: Make) -> None:
    acquisition = make()
    runs = [acquisition.start(python("import time; time.sleep(60)")) for _ in range(3)]
    acquisition.stop_all("end of the session")
    assert [run.poll() for run in runs if run.poll() is None] == []
    assert acquisition.active == []


def test_echo_only_where_asked(make: Make) -> None:
    echoed: list[bytes] = []
    acquisition = make(echo=lambda _, new: echoed.extend(new))
    acquisition.run(python("print(1)"))
    acquisition.run(python("print(2)"), echo=True)
    assert echoed == [b"2"]


def test_a_dry_run_runs_nothing_and_says_what_it_would(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    acquisition = make(dry_run=True)
    facts = acquisition.run(["no-such-program", "--frames", "10"])
    assert (facts.returncode, facts.pid) == (0, None)
    assert "would have run: no-such-program --frames 10" in caplog.text
    with acquisition.running("no-such-program") as process:
        assert process.poll() is None
        assert acquisition.active == [process]
        assert process.wait().returncode == 0
    assert len(acquisition.finished) == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("exit:3", Fault("exit", 3)),
        ("exit", Fault("exit", 1)),
        ("hang", Fault("hang")),
        ("crash", Fault("crash")),
        ("crash@2s", Fault("crash", 0, 2.0)),
        ("exit:1@500ms", Fault("exit", 1, 0.5)),
        ("chatty", Fault("chatty", 100_000)),
        ("acquisition=chatty:10@1min", Fault("chatty", 10, 60.0)),
    ],
)
def test_faults_are_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize("text", ["", "exit:300", "exit:x", "hang:2", "crash:2", "explode", "chatty:-1"])
def test_other_faults_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no fault of an acquisition; possible are exit:N"):
        parse_fault(text)


def test_a_fault_at_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="soon"):
        parse_fault("crash@soon")


def test_a_fault_ends_a_dry_run_for_real(make: Make, lines: list[tuple[str, bytes]]) -> None:
    def run(text: str, **settings: Any) -> AcquisitionFacts:
        return make(dry_run=True, fault=parse_fault(text)).run("no-such-program", **settings)

    with pytest.raises(AcquisitionFailed, match="exit code 3; last line on stderr: simulated failure"):
        run("exit:3")
    with pytest.raises(AcquisitionTimeout):
        run("hang", timeout_s=0.5)
    with pytest.raises(AcquisitionFailed, match=r"SIGSEGV|access violation"):
        run("crash@100ms")
    lines.clear()
    assert run("chatty:20000").returncode == 0
    assert len(lines) == 20_000
