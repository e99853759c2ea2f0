"""Acquisitions in GNU Octave: real m-files, a real octave-cli, killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_acquisition_adapters import Host

from pytest_openscope import AcquisitionFacts, AcquisitionFailed, AcquisitionTimeout
from pytest_openscope.acquisition import check_parameters, describe_command
from pytest_openscope.acquisition.octave import literal

M_FILES = Path(__file__).parent / "data" / "matlab"

needs_octave = pytest.mark.skipif(
    shutil.which("octave-cli") is None, reason="octave-cli is not installed: no MATLAB code is run (apt install octave)"
)


def octave(function: str, folder: Path | None = M_FILES, **parameters: Any) -> dict[str, Any]:
    path = {} if folder is None else {"matlab_path": [str(folder)]}
    return {"launcher": "matlab", "matlab_engine": "octave", "matlab_entrypoint": function, **path, **parameters}


def pairs(**values: Any) -> dict[str, Any]:
    return {"script_parameters": values}


def run(host: Host, parameters: dict[str, Any]) -> AcquisitionFacts:
    facts = host.acquisition.run_launcher(parameters)
    assert facts is not None
    return facts


def until(ready: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.005)


def texts(host: Host, stream: str = "stdout") -> list[str]:
    return [line.decode() for source, line in host.lines if source.endswith(stream)]


def pid_of(host: Host, name: str = "") -> int:
    started = [fields for event, fields in host.events if event == "acquisition_started" and name in fields["name"]]
    return int(started[-1]["pid"])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "s")


@needs_octave
def test_a_function_gets_its_arguments_and_its_output_is_in_the_log(host: Host) -> None:
    facts = run(host, octave("acquire", **pairs(frames=3)))
    assert texts(host) == ["frame 1", "frame 2", "frame 3"]
    assert (host.acquisition.folder / "frames.txt").read_text() == "1\n2\n3\n"
    assert (host.acquisition.folder / "closed.txt").exists()
    assert (facts.name, facts.returncode) == ("acquire", 0)
    assert facts.command[0] == "octave-cli"
    assert f"feval ('acquire', '{host.acquisition.folder}', 'frames', int64 (3));" in facts.command[-1]
    assert facts.pid == pid_of(host)
    assert not psutil.pid_exists(pid_of(host)), "Octave is left"
    raw = host.acquisition.folder / "launcher_metadata" / "acquisition" / "acquire.stdout.log"
    assert raw.read_bytes() == b"frame 1\nframe 2\nframe 3\n"


@needs_octave
def test_the_output_is_there_while_it_runs(host: Host) -> None:
    thread = threading.Thread(target=run, args=(host, octave("acquire", **pairs(frames=1000, seconds=0.02))), daemon=True)
    thread.start()
    until(lambda: "frame 3" in texts(host))
    assert host.acquisition.active
    assert len(texts(host)) < 900
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        host.acquisition.stop_all("enough")
        thread.join(20)
    assert not thread.is_alive()


@needs_octave
def test_values_have_the_types_that_matlab_gives_them(host: Host) -> None:
    values = ['it\'s "ä"\t\\n', 7, 7.5, -0.1, True, None, [1.0, "b"], {"rate": 2.0}]
    run(host, octave("show", matlab_entrypoint_args=values, matlab_pass_session_folder=False, matlab_entrypoint_nargout=2))
    said = "\n".join(texts(host))
    assert 'char it\'s "ä"\t\\n\nint64 7\ndouble 7.5000\ndouble -0.1000\nlogical 1\n' in said
    assert "double " in said
    assert "cell {" in said
    assert "[1,2] = b" in said
    assert "struct " in said
    assert "rate = 2" in said
    assert texts(host)[-2:] == ["output 1: 42", "output 2: text"]


@needs_octave
def test_an_error_fails_the_acquisition_with_its_message(host: Host) -> None:
    with pytest.raises(AcquisitionFailed) as caught:
        run(host, octave("acquire", **pairs(fail_at=2)))
    said = 'error: the shutter is "stuck" at 2'
    assert str(caught.value) == f"acquisition 'acquire' ended with exit code 70; last line on stderr: {said}"
    assert texts(host) == ["frame 1", "frame 2"]
    assert texts(host, "stderr")[0].startswith("error:     acquire at line")
    assert texts(host, "stderr")[-1] == said
    assert (host.acquisition.folder / "closed.txt").exists()
    assert not host.questions, "an error of the function is not resumed"


@needs_octave
@pytest.mark.parametrize("function", ["no_such_function", "rig.no_such_function"])
def test_a_function_that_is_not_there(host: Host, function: str) -> None:
    with pytest.raises(AcquisitionFailed, match="no_such_function"):
        run(host, octave(function))


@needs_octave
def test_a_script_that_clears_everything_and_a_function_of_a_package(host: Host) -> None:
    run(host, octave("sweep", matlab_pass_session_folder=False))
    run(host, octave("rig.calibrate"))
    assert texts(host) == ["swept", "calibrated"]


@needs_octave
def test_much_output_arrives_whole_and_in_order(host: Host, tmp_path: Path) -> None:
    (tmp_path / "flood.m").write_text("function flood (varargin)\n  printf ('%d \\036 line\\n', 1:100000);\nend\n")
    run(host, octave("flood", tmp_path))
    assert texts(host) == [f"{number} \x1e line" for number in range(1, 100001)]


@needs_octave
def test_output_without_a_last_newline_is_kept(host: Host, tmp_path: Path) -> None:
    (tmp_path / "quiet.m").write_text("function quiet (varargin)\n  printf ('no newline'); fputs (stderr, 'nor here');\nend\n")
    run(host, octave("quiet", tmp_path))
    assert (texts(host), texts(host, "stderr")) == (["no newline"], ["nor here"])


@needs_octave
def test_it_is_cancelled_and_closes_its_files(host: Host) -> None:
    failures: list[BaseException] = []

    def acquire() -> None:
        try:
            run(host, octave("acquire", **pairs(frames=1000, seconds=30.0)))
        except AcquisitionFailed as error:
            failures.append(error)

    thread = threading.Thread(target=acquire)
    thread.start()
    until(lambda: texts(host) == ["frame 1"])
    begun_s = time.monotonic()
    host.acquisition.stop_all("Ctrl-C")
    thread.join(20)
    assert time.monotonic() - begun_s < 10
    assert [str(one) for one in failures] == ["acquisition 'acquire' was stopped: Ctrl-C"]
    assert (host.acquisition.folder / "closed.txt").exists(), "the function did not clean up"
    assert not psutil.pid_exists(pid_of(host))
    assert not host.questions


@needs_octave
def test_it_is_cancelled_when_another_acquisition_beside_it_fails(host: Host) -> None:
    frames = host.acquisition.folder / "frames.txt"
    camera = f"import pathlib, time\nwhile not pathlib.Path({str(frames)!r}).exists(): time.sleep(0.01)\nraise SystemExit(3)"
    together = [octave("acquire", **pairs(seconds=60.0)), {"command": [sys.executable, "-c", camera], "name": "camera"}]
    with pytest.raises(AcquisitionFailed, match="acquisition 'camera' ended with exit code 3"):
        host.acquisition.run_all(together)
    assert (host.acquisition.folder / "closed.txt").exists()
    assert not psutil.pid_exists(pid_of(host, "acquire"))


@needs_octave
def test_it_is_cancelled_at_its_limit(host: Host) -> None:
    host.acquisition.defaults = _limited(host, 1.0)
    with pytest.raises(AcquisitionTimeout, match="ran longer than timeout_s = 1 s"):
        run(host, octave("acquire", **pairs(seconds=30.0)))
    assert (host.acquisition.folder / "closed.txt").exists()


def _limited(host: Host, timeout_s: float) -> Any:
    return replace(host.acquisition.defaults, timeout_s=timeout_s)


@needs_octave
@pytest.mark.skipif(sys.platform == "win32", reason="the function ignores a POSIX signal")
def test_what_ignores_the_cancel_is_killed_with_its_children(host: Host) -> None:
    host.acquisition.defaults = _limited(host, 1.0)
    with pytest.raises(AcquisitionTimeout) as caught:
        run(host, octave("deaf", matlab_cancel_timeout_sec=1.0))
    assert caught.value.facts.survivors == []
    pid = pid_of(host)
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: not _living_in_group(pid))


def _living_in_group(group: int) -> list[psutil.Process]:
    members = [process for process in psutil.process_iter(["status"]) if _group(process.pid) == group]
    return [process for process in members if process.info["status"] != psutil.STATUS_ZOMBIE]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


@needs_octave
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_octave_dies_and_the_acquisition_is_resumed(tmp_path: Path) -> None:
    host = Host(tmp_path / "s", answers=["resume"])
    facts = run(host, octave("acquire", **pairs(frames=5, die_at=2)))
    assert facts.returncode == 0
    assert (tmp_path / "s" / "frames.txt").read_text() == "1\n2\n3\n4\n5\n"
    assert [line for line in texts(host) if "frame" in line] == [
        "frame 1", "frame 2", "resumed at frame 3", "frame 3", "frame 4", "frame 5"
    ]  # fmt: skip
    ((question, choices, default),) = host.questions
    assert "was killed by SIGKILL" in question
    assert "Start Octave again and resume the acquisition?" in question
    assert (choices, default) == (("resume", "fail"), "resume")
    assert [one.name for one in host.acquisition.finished] == ["acquire", "acquire[2]"]
    assert "'resume', true" in host.acquisition.finished[1].command[-1]
    assert "'resume', true" not in host.acquisition.finished[0].command[-1]


@needs_octave
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_octave_is_killed_from_outside(tmp_path: Path) -> None:
    host = Host(tmp_path / "s", answers=["resume"])
    done: list[AcquisitionFacts] = []
    parameters = octave("acquire", **pairs(frames=60, seconds=0.02))
    thread = threading.Thread(target=lambda: done.append(run(host, parameters)))
    thread.start()
    until(lambda: "frame 2" in texts(host))
    os.kill(pid_of(host), signal.SIGKILL)
    thread.join(30)
    assert done
    assert (tmp_path / "s" / "frames.txt").read_text().split() == [str(number) for number in range(1, 61)]


@needs_octave
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("answers", "more"), [(["fail"], {}), ([None], {}), ([], {"matlab_enable_resume": False})])
def test_it_is_resumed_only_when_the_operator_says_so(tmp_path: Path, answers: list[Any], more: dict[str, Any]) -> None:
    host = Host(tmp_path / "s", answers=answers)
    with pytest.raises(AcquisitionFailed, match="acquisition 'acquire' was killed by SIGKILL"):
        run(host, octave("acquire", **pairs(die_at=2), **more))
    assert len(host.questions) == len(answers)
    assert len(host.acquisition.finished) == 1


@needs_octave
def test_what_is_known_of_a_silent_one_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "wait_for_me.m").write_text("function wait_for_me (varargin)\n  pause (60);\nend\n")
    host.acquisition.defaults = replace(host.acquisition.defaults, process_start_timeout_s=0.3)
    with pytest.raises(AcquisitionFailed, match=r"printed nothing within 0\.3 s of its start: Octave may wait for input"):
        run(host, octave("wait_for_me", tmp_path))


@needs_octave
def test_an_octave_whose_call_cannot_begin_is_not_left(host: Host) -> None:
    (host.acquisition.folder / "launcher_metadata").write_text("no folder: the raw files cannot be made")
    with pytest.raises(AcquisitionFailed, match="did not start"):
        run(host, octave("acquire"))
    own = psutil.Process()
    assert not [child for child in own.children() if child.name().startswith("octave")]


@needs_octave
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_octave_ends_by_itself(host: Host, tmp_path: Path) -> None:
    (tmp_path / "leave.m").write_text("function leave (varargin)\n  disp ('bye'); exit (3);\nend\n")
    host._answers.append("fail")
    with pytest.raises(AcquisitionFailed, match="ended with exit code 3"):
        run(host, octave("leave", tmp_path))
    assert texts(host) == ["bye"]


def program(folder: Path, text: str) -> str:
    path = folder / "octave-cli"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 127", "is no Octave that can be used: it ended with exit code 127"),
        ("exec sleep 60", "cannot be used 0.5 s after its start"),
    ],
)
def test_an_octave_that_does_not_work(host: Host, tmp_path: Path, text: str, words: str) -> None:
    parameters = octave("f", octave_exe_path=program(tmp_path, text), matlab_engine_connect_timeout_sec=0.5)
    with pytest.raises(AcquisitionFailed, match=f"'matlab' is not ready: .*{words}"):
        run(host, parameters)
    assert not host.questions


def test_no_octave(host: Host) -> None:
    with pytest.raises(AcquisitionFailed, match=r"is not ready: 'octave-none' cannot be started: .*; install GNU Octave"):
        run(host, octave("f", octave_exe_path="octave-none"))
    (error,) = check_parameters(octave("acquire", octave_exe_path="octave-none"), dry_run=False)
    assert "octave_exe_path: there is no program 'octave-none'" in str(error)


def test_a_dry_run_looks_for_the_m_file(tmp_path: Path) -> None:
    assert check_parameters(octave("acquire"), dry_run=True) == []
    assert check_parameters(octave("rig.calibrate"), dry_run=True) == []
    assert check_parameters(octave("anything", None), dry_run=True) == []
    (error,) = check_parameters(octave("aquire"), dry_run=True, where="day1.json")
    assert str(error) == (
        f"day1.json: matlab_entrypoint: there is no m-file of 'aquire' in {M_FILES} -> "
        "mend the name, or add its folder to matlab_path"
    )
    (error,) = check_parameters(octave("acquire", tmp_path / "none"), dry_run=True)
    assert "matlab_path: there is no folder" in str(error)
    (error,) = check_parameters(octave("a b"), dry_run=True)
    assert "matlab_entrypoint: 'a b' is no name of a MATLAB function" in str(error)
    unknown: list[Any] = []
    elsewhere = octave("acquire", None, matlab_path=["stimuli"], local_repository_path=str(tmp_path), repository_url="u/r.git")
    assert check_parameters(elsewhere, dry_run=True, unknown=unknown) == []
    assert [one.key for one in unknown] == ["matlab_path"]


def test_a_script_path_names_function_and_folder(tmp_path: Path) -> None:
    parameters = {"launcher": "matlab", "matlab_engine": "octave", "script_path": str(M_FILES / "acquire.m")}
    assert check_parameters(parameters, dry_run=True) == []
    assert describe_command(parameters, tmp_path) == f"Octave: acquire({str(tmp_path)!r})"
    (error,) = check_parameters({**parameters, "script_path": str(M_FILES / "none.m")}, dry_run=True)
    assert "script_path: there is no none.m in" in str(error)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("a'b", "'a''b'"), ('say "x"\n', '"say \\042x\\042\\012"'), ("%d\\", "'%d\\'"), (True, "true"), (3, "int64 (3)"),
        (float("nan"), "NaN"), (float("-inf"), "-Inf"), (1e300, "1e+300"), (None, "[]"), ([], "{}"), ({}, "struct ()"),
        ({"a": [1, "x"]}, "struct ('a', {{int64 (1), 'x'}})"), (Path("a"), "'a'"),
    ],
)  # fmt: skip
def test_values_as_code(value: Any, code: str) -> None:
    assert literal(value) == code


def test_a_value_without_an_equal() -> None:
    with pytest.raises(TypeError, match="set has no equal in Octave"):
        literal({1})
