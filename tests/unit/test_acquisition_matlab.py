"""Acquisitions in a shared MATLAB, against a stand-in of matlab.engine whose MATLAB is a process that can be killed."""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_acquisition_adapters import Host
from test_acquisition_octave import pairs, run, texts, until

from pytest_openscope import AcquisitionFacts, AcquisitionFailed, AcquisitionTimeout
from pytest_openscope.acquisition import check_parameters, describe_command
from pytest_openscope.acquisition.matlab_engine import MatlabEngine

DATA = Path(__file__).parent / "data"
PARAMETERS = {"launcher": "matlab", "matlab_engine_connect_timeout_sec": 10, "matlab_engine_connect_poll_interval_sec": 0.05}


class Matlab:
    """Starts and ends stand-ins of MATLAB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def share(self, name: str = "slap2_launcher", wait: bool = True) -> subprocess.Popen[bytes]:
        path = self.folder / f"{name}.json"
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, str(DATA / "shared_matlab.py"), str(self.folder), name])
        self.processes.append(process)
        if wait:
            until(path.exists)
        return process


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Installs the stand-in of the package."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setenv("STANDIN_MATLAB", str(folder))
    monkeypatch.syspath_prepend(str(DATA / "matlab_package"))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "matlab"]:
        del sys.modules[name]


@pytest.fixture
def matlab(package: Path) -> Iterator[Matlab]:
    sessions = Matlab(package)
    yield sessions
    for process in sessions.processes:
        process.kill()
        process.wait()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "s")


def interrupt() -> None:
    """As Ctrl-C does; a signal that a process of Windows sends to itself ends it."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


def in_background(host: Host, parameters: dict[str, Any]) -> tuple[threading.Thread, list[Any]]:
    ends: list[Any] = []

    def work() -> None:
        try:
            ends.append(run(host, parameters))
        except AcquisitionFailed as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, ends


def test_the_real_parameter_file_runs(host: Host, matlab: Matlab) -> None:
    process = matlab.share()
    parameters = json.loads((DATA / "params" / "matlab_slave_archiver.json").read_text(encoding="utf-8"))
    facts = run(host, {**parameters, "matlab_engine_connect_timeout_sec": 10})
    assert texts(host) == [
        '[SLAP2] {"rig_description_path": "C:/Users/ScanImage/Documents/slap2/configuration.json"}',
        "frame 1",
        "frame 2",
        "frame 3",
    ]
    assert (facts.name, facts.returncode, facts.pid) == ("slap2_launcher", 0, None)
    assert process.poll() is None, "MATLAB did not stay alive"


def test_a_second_acquisition_connects_again(host: Host, matlab: Matlab) -> None:
    matlab.share()
    run(host, PARAMETERS)
    run(host, PARAMETERS)
    assert [one.name for one in host.acquisition.finished] == ["slap2_launcher", "slap2_launcher[2]"]


def test_the_output_is_there_while_it_runs_and_a_cancel_lets_the_function_clean_up(host: Host, matlab: Matlab) -> None:
    process = matlab.share()
    thread, ends = in_background(host, {**PARAMETERS, **pairs(frames=10_000)})
    until(lambda: "frame 3" in texts(host))
    host.acquisition.stop_all("Ctrl-C")
    thread.join(20)
    assert str(ends[0]) == "acquisition 'slap2_launcher' was stopped: Ctrl-C"
    assert ends[0].facts.survivors == []
    assert (host.acquisition.folder / "closed.txt").exists()
    assert not host.questions
    assert process.poll() is None
    run(host, {**PARAMETERS, **pairs(frames=1)})


def test_a_function_that_cannot_be_cancelled_is_left_behind_after_its_time(host: Host, matlab: Matlab) -> None:
    matlab.share()
    host.acquisition.defaults = replace(host.acquisition.defaults, timeout_s=0.3)
    begun_s = time.monotonic()
    with pytest.raises(AcquisitionTimeout) as caught:
        run(host, {**PARAMETERS, "matlab_entrypoint": "deaf", "matlab_cancel_timeout_sec": 0.5})
    assert time.monotonic() - begun_s < 20
    assert caught.value.facts.survivors == ["the call of deaf, which does not end"]


def test_an_error_of_the_function(host: Host, matlab: Matlab) -> None:
    matlab.share()
    with pytest.raises(AcquisitionFailed, match="failed: FunctionFailed: the shutter is stuck"):
        run(host, {**PARAMETERS, **pairs(fail_at=2)})
    assert texts(host, "stderr") == ["Error using slap2"]
    with pytest.raises(AcquisitionFailed, match="Undefined function 'no_such'"):
        run(host, {**PARAMETERS, "matlab_entrypoint": "no_such"})
    assert not host.questions


def test_somebody_presses_ctrl_c_in_the_window_of_matlab(host: Host, matlab: Matlab) -> None:
    matlab.share()
    with pytest.raises(AcquisitionFailed, match="failed: EngineInterrupted: slap2_launcher was interrupted"):
        run(host, {**PARAMETERS, **pairs(press_ctrl_c_at=2)})
    assert not host.questions


@pytest.mark.parametrize("death", ["EngineError", "SystemError", "RejectedExecutionError"])
def test_matlab_dies_and_the_acquisition_is_resumed(
    tmp_path: Path, matlab: Matlab, death: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_MATLAB_DEATH", death)
    matlab.share()

    class Lab(Host):
        def _ask(self, question: str, choices: Sequence[str], default: str) -> str | None:
            matlab.share(wait=False)  # It takes its time to start: the reconnection polls.
            return super()._ask(question, choices, default)

    host = Lab(tmp_path / "s", answers=["resume"])
    facts = run(host, {**PARAMETERS, **pairs(frames=5, die_at=2)})
    assert facts.command[-2:] == ["resume", "True"]
    assert (tmp_path / "s" / "frames.txt").read_text().split() == ["1", "2", "3", "4", "5"]
    assert "resumed at frame 3" in texts(host)
    assert '[SLAP2] {"frames": 5, "die_at": 2}' in texts(host), "the first call had a resume flag"
    ((question, choices, default),) = host.questions
    assert "failed: EngineDied: MATLAB 'slap2_launcher' is gone" in question
    assert "Start MATLAB again, share it as 'slap2_launcher', then resume the acquisition?" in question
    assert (choices, default) == (("resume", "fail"), "resume")


def test_matlab_is_killed_and_nobody_starts_it_again(tmp_path: Path, matlab: Matlab) -> None:
    process = matlab.share()
    host = Host(tmp_path / "s", answers=["resume", "fail"])
    parameters = {**PARAMETERS, "matlab_engine_connect_timeout_sec": 0.3, **pairs(frames=10_000)}
    thread, ends = in_background(host, parameters)
    until(lambda: "frame 2" in texts(host))
    process.kill()
    process.wait()
    thread.join(20)
    assert "is not ready: no MATLAB shared as 'slap2_launcher' within 0.3 s: no MATLAB is shared" in str(ends[0])
    assert len(host.questions) == 2


def test_a_matlab_that_is_shared_later_is_waited_for(host: Host, matlab: Matlab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    thread, ends = in_background(host, PARAMETERS)
    until(lambda: host.notices)
    matlab.share()
    thread.join(20)
    assert isinstance(ends[0], AcquisitionFacts)
    assert "connected to the shared MATLAB 'slap2_launcher'" in caplog.text
    assert host.notices == [
        "waiting at most 10 s for a MATLAB that is shared as 'slap2_launcher' (no MATLAB is shared): "
        "start MATLAB, and in it matlab.engine.shareEngine('slap2_launcher')"
    ]


def test_no_matlab_is_shared_in_time(host: Host, matlab: Matlab) -> None:
    matlab.share("other")
    begun_s = time.monotonic()
    with pytest.raises(AcquisitionFailed) as caught:
        run(host, {**PARAMETERS, "matlab_engine_name": "rig", "matlab_engine_connect_timeout_sec": 0.4})
    assert time.monotonic() - begun_s < 20
    assert str(caught.value) == (
        "acquisition of launcher 'matlab' is not ready: no MATLAB shared as 'rig' within 0.4 s: shared are other; "
        "start MATLAB, and in it matlab.engine.shareEngine('rig')"
    )
    assert not host.questions, "nothing has died"


def test_a_matlab_that_somebody_else_is_connected_to(host: Host, matlab: Matlab) -> None:
    matlab.share()
    first = MatlabEngine("slap2_launcher", 5.0, 0.05)
    with pytest.raises(AcquisitionFailed, match="it is connected already"):
        run(host, {**PARAMETERS, "matlab_engine_connect_timeout_sec": 3})
    first.close(None)
    run(host, PARAMETERS)


def test_a_matlab_that_is_shared_and_hangs(host: Host, matlab: Matlab) -> None:
    process = matlab.share()
    psutil.Process(process.pid).suspend()
    with pytest.raises(AcquisitionFailed, match="within 1 s: it is shared, but does not answer; start MATLAB"):
        run(host, {**PARAMETERS, "matlab_engine_connect_timeout_sec": 1})


def test_matlab_is_ended_when_it_is_not_to_be_kept(host: Host, matlab: Matlab) -> None:
    process = matlab.share()
    run(host, {**PARAMETERS, "matlab_keep_engine_alive": False})
    assert process.wait(5) == 0


def test_values_folders_and_outputs(host: Host, matlab: Matlab, tmp_path: Path) -> None:
    matlab.share()
    values = [None, True, 7, 1.5, ["a", None], {"rate": 2}]
    own = {"matlab_entrypoint": "show", "matlab_entrypoint_args": values, "matlab_pass_session_folder": False}
    run(host, {**PARAMETERS, **own, "matlab_entrypoint_nargout": 2, "matlab_path": str(tmp_path)})
    assert texts(host) == [
        "double []", "bool True", "int 7", "float 1.5", "list ['a', []]", "dict {'rate': 2}", "output 1: 42", "output 2: text"
    ]  # fmt: skip
    run(host, {**PARAMETERS, "matlab_entrypoint": "path"})
    assert texts(host)[-1] == str(tmp_path)


def test_a_value_that_the_engine_does_not_take(host: Host, matlab: Matlab) -> None:
    matlab.share()
    with pytest.raises(AcquisitionFailed, match=r"FunctionFailed: unsupported Python data type: (Posix|Windows)Path"):
        run(host, {**PARAMETERS, "matlab_entrypoint": "show", "matlab_entrypoint_args": [Path("a")]})


def test_ctrl_c_that_the_package_took_for_itself_is_not_lost(matlab: Matlab, monkeypatch: pytest.MonkeyPatch) -> None:
    import matlab.engine as engine  # type: ignore[import-not-found]

    matlab.share()
    monkeypatch.setattr(engine.FutureResult, "result", lambda self, timeout=None: None)
    with pytest.raises(KeyboardInterrupt):
        MatlabEngine("slap2_launcher", 5.0, 0.05)


def test_ctrl_c_while_it_waits_ends_the_wait(matlab: Matlab) -> None:
    timer = threading.Timer(0.3, interrupt)
    timer.start()
    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        MatlabEngine("slap2_launcher", 20.0, 0.05)
    assert time.monotonic() - begun_s < 5
    timer.join()


def test_the_package_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matlab", None)
    with pytest.raises(AcquisitionFailed, match=r"is not ready: the package matlab\.engine does not work here.*matlabengine=="):
        run(host, PARAMETERS)
    monkeypatch.delitem(sys.modules, "matlab")
    (error,) = check_parameters(PARAMETERS, dry_run=False, where="day1.json")
    assert "day1.json: matlab_engine: the package matlab.engine is not installed -> pip install matlabengine==" in str(error)
    assert check_parameters(PARAMETERS, dry_run=True) == []


def test_the_package_finds_no_matlab(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "matlab").mkdir()
    text = "raise RuntimeError('The MATLAB Engine for Python install is corrupted.')\n"
    (tmp_path / "matlab" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AcquisitionFailed, match=r"does not work here .The MATLAB Engine for Python install is corrupted\."):
        run(host, PARAMETERS)


def test_the_package_is_there(package: Path) -> None:
    assert check_parameters(PARAMETERS, dry_run=False) == []


def arguments(**parameters: Any) -> str:
    return describe_command({"launcher": "matlab", **parameters}, Path("S")).partition(": ")[2]


@pytest.mark.parametrize(
    ("parameters", "call"),
    [
        ({}, "slap2_launcher('execute', 'S')"),
        ({"matlab_entrypoint_args": ["execute", 1]}, "slap2_launcher('execute', 'S', 1)"),
        ({"matlab_function": "f"}, "f('S')"),
        ({"matlab_entrypoint": "f", "matlab_function": "g", "matlab_entrypoint_args": [1, "b"]}, "f(1, 'b', 'S')"),
        ({"matlab_entrypoint": "f", "matlab_entrypoint_args": [1], "matlab_session_folder_position": "prepend"}, "f('S', 1)"),
        ({"matlab_entrypoint": "f", "matlab_entrypoint_args": [1, 2], "matlab_session_folder_position": 1}, "f(1, 'S', 2)"),
        ({"matlab_entrypoint": "f", "matlab_session_folder_position": "ignore"}, "f()"),
        ({"matlab_entrypoint": "f", "matlab_pass_session_folder": False}, "f()"),
        ({"script_path": "C:\\rig\\acquire.m"}, "acquire('S')"),
        (
            {
                "matlab_entrypoint": "f",
                "script_parameters": {"a": 1, "b": 2},
                "matlab_entrypoint_kwargs": {"b": 3, "c": None},
                "rig_description_path": "r.json",
            },
            "f('S', 'a', 1, 'b', 3, 'c', None, 'rig_description_path', 'r.json')",
        ),
    ],
)
def test_the_arguments(parameters: dict[str, Any], call: str) -> None:
    assert arguments(**parameters) == call


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"matlab_session_folder_position": "middle"}, "matlab_session_folder_position: 'middle' is no position"),
        ({"matlab_entrypoint": "f.m/x"}, "matlab_entrypoint: 'f.m/x' is no name of a MATLAB function"),
        ({"matlab_entrypoint_nargout": -1}, "matlab_entrypoint_nargout"),
    ],
)
def test_mistakes(parameters: dict[str, Any], words: str) -> None:
    (error,) = check_parameters({"launcher": "matlab", **parameters}, dry_run=True)
    assert words in str(error)


def test_an_entry_point_that_is_not_where_it_is_looked_for_may_be_on_the_path_of_matlab(tmp_path: Path) -> None:
    warnings: list[Any] = []
    assert check_parameters({"launcher": "matlab", "matlab_path": [str(tmp_path)]}, True, "p", [], warnings) == []
    assert [one.problem for one in warnings] == [f"there is no m-file of 'slap2_launcher' in {tmp_path}"]
