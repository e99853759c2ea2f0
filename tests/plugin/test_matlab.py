"""Whole sessions with launcher: matlab: in GNU Octave, and in a stand-in of a shared MATLAB."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_endings_more import on_a_terminal

DATA = Path(__file__).parents[1] / "unit" / "data"
needs_octave = pytest.mark.skipif(
    shutil.which("octave-cli") is None, reason="octave-cli is not installed: no MATLAB code is run (apt install octave)"
)

SAVE = (
    "from pathlib import Path\ndef run_post_acquisition(params):\n    Path(params['output_session_folder'], 'saved').touch()\n"
)


def experiment(bench: Any, **parameters: Any) -> None:
    """Write a parameter file as labs have them: an acquisition, and a step that saves."""
    bench.write("rig.yaml", "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\nask_notes: false\n")
    bench.write("save.py", SAVE)
    day = {
        "launcher": "matlab",
        "matlab_engine": "octave",
        "matlab_path": [str(DATA / "matlab")],
        "matlab_entrypoint": "acquire",
        "post_acquisition_pipeline": [{"module_type": "script_module", "module_path": "save.py"}],
        **parameters,
    }
    bench.write("day1.json", json.dumps(day))


def start(bench: Any) -> Any:
    return bench.start("day1.json")


def frames(bench: Any) -> list[int]:
    return [int(line) for line in (bench.folder / "frames.txt").read_text().split()]


def octave_pid(bench: Any) -> int:
    journal = (bench.folder / "launcher_metadata" / "journal.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in journal.splitlines() if '"acquisition_started"' in line]
    return int(events[-1]["pid"])


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@needs_octave
def test_a_session_in_octave(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 4})
    assert bench.run("day1.json").ret == 0
    assert bench.outcomes() == {"acquisition": "passed", "save": "passed"}
    assert frames(bench) == [1, 2, 3, 4]
    for number in range(1, 5):
        assert f"INFO acquisition acquisition acquisition.acquire.stdout frame {number}" in bench.messages
    (facts,) = bench.end["acquisitions"]
    assert (facts["name"], facts["returncode"]) == ("acquire", 0)
    assert not runs(facts["pid"])


@needs_octave
def test_the_log_has_the_output_while_octave_runs_and_ctrl_c_cancels_it(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 100_000})
    process = start(bench)
    bench.wait_for(lambda: "acquisition.acquire.stdout frame 5" in bench.messages, 40)
    assert process.poll() is None
    pid = octave_pid(bench)
    assert runs(pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 2
    assert bench.end["outcome"] == "interrupted"
    assert (bench.folder / "closed.txt").exists(), "the function could not close its file"
    assert (bench.folder / "saved").exists(), "post-acquisition did not run"
    assert not runs(pid)


@needs_octave
def test_octave_dies_and_the_operator_resumes_it(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 6, "die_at": 3})
    question = b"Start Octave again and resume the acquisition? (resume, fail)"
    assert on_a_terminal(bench, [(question, b"r\n")], "day1.json") == 0
    assert frames(bench) == [1, 2, 3, 4, 5, 6]
    assert "acquisition.acquire[2].stdout resumed at frame 4" in bench.messages
    assert bench.outcomes() == {"acquisition": "passed", "save": "passed"}
    assert [one["name"] for one in bench.end["acquisitions"]] == ["acquire", "acquire[2]"]


@needs_octave
def test_octave_is_killed_while_nobody_is_there(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 100_000})
    process = start(bench)
    bench.wait_for(lambda: "acquisition.acquire.stdout frame 3" in bench.messages, 40)
    psutil.Process(octave_pid(bench)).kill()
    assert process.wait(40) == 1
    assert bench.outcomes() == {"acquisition": "failed", "save": "passed"}
    assert "acquisition 'acquire' was killed by SIGKILL" in bench.debug["exception"] + bench.debug["traceback"]


@needs_octave
def test_kill_9_of_the_session_stops_octave(bench: Any) -> None:
    """The sidecar presses Ctrl-C: the function, which waits and prints nothing, closes its file, and Octave is gone."""
    experiment(bench, script_parameters={"frames": 100_000, "seconds": 600.0})
    process = start(bench)
    bench.wait_for(lambda: "acquisition.acquire.stdout frame 1" in bench.messages, 40)
    pid = octave_pid(bench)
    process.kill()
    process.wait()
    bench.wait_for(lambda: not runs(pid), 40)
    assert (bench.folder / "closed.txt").exists()
    bench.wait_for(lambda: bench.end["outcome"] == "crashed", 40)
    bench.wait_for(lambda: (bench.folder / "saved").exists(), 40)


@needs_octave
def test_an_acquisition_that_runs_for_too_long(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 100_000}, acquisition_timeout_s=1)
    assert bench.run("day1.json").ret == 1
    assert bench.outcomes() == {"acquisition": "timeout", "save": "passed"}
    assert (bench.folder / "closed.txt").exists()


@needs_octave
def test_a_python_experiment_calls_matlab_code(bench: Any) -> None:
    bench.steps(f"""
def test_acquire(acquisition):
    shared = dict(launcher="matlab", matlab_engine="octave", matlab_path=[{str(DATA / "matlab")!r}])
    first = acquisition.run_launcher(dict(shared, matlab_entrypoint="acquire", script_parameters=dict(frames=2)))
    second = acquisition.run_launcher(dict(shared, matlab_entrypoint="rig.calibrate"))
    assert first.stdout_tail == ["frame 1", "frame 2"] and second.stdout_tail == ["calibrated"]
""")
    assert bench.run("test_experiment.py").ret == 0


def test_a_dry_run_reads_the_file_and_runs_nothing(bench: Any) -> None:
    experiment(bench, script_parameters={"frames": 4})
    result = bench.run("day1.json", "--dry-run")
    assert result.ret == 0
    assert "would have run: octave-cli" in bench.messages
    assert "feval (acquire, " in bench.messages.replace("'", "").replace('"', "")
    assert not (bench.folder / "frames.txt").exists()


def test_mistakes_stop_a_session_before_it_starts(bench: Any) -> None:
    experiment(bench, matlab_entrypoint="aquire", octave_exe_path="octave-none")
    result = bench.run("day1.json")
    assert result.ret == 4
    told = result.stderr.str() + result.stdout.str()
    assert "there is no m-file of 'aquire'" in told
    assert "there is no program 'octave-none'" in told
    assert bench.folders == []


@pytest.fixture
def matlab(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A stand-in of a MATLAB that is shared as slap2_launcher, and of the package that connects to it."""
    shared = bench.path / "shared"
    shared.mkdir()
    monkeypatch.setenv("STANDIN_MATLAB", str(shared))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DATA / "matlab_package"), os.environ["PYTHONPATH"]]))
    process = subprocess.Popen([sys.executable, str(DATA / "shared_matlab.py"), str(shared), "slap2_launcher"])
    yield process
    process.kill()
    process.wait()


def test_the_real_parameter_file_in_a_session(bench: Any, matlab: subprocess.Popen[bytes]) -> None:
    """The key that says MATLAB is no obstacle any more; the stand-in of MATLAB gets what the launcher would send."""
    real = json.loads((DATA / "params" / "matlab_slave_archiver.json").read_text(encoding="utf-8"))
    own = {key: value for key, value in real.items() if key.startswith("matlab_") or key == "script_parameters"}
    experiment(bench, **own, matlab_engine="matlab", matlab_path=[])
    assert bench.run("day1.json").ret == 0
    assert matlab.poll() is None
    assert bench.outcomes() == {"acquisition": "passed", "save": "passed"}
    assert 'stdout [SLAP2] {"rig_description_path": "C:/Users/ScanImage' in bench.messages


def test_kill_9_of_the_session_leaves_matlab_and_says_so(bench: Any, matlab: subprocess.Popen[bytes]) -> None:
    own = {"matlab_engine": "matlab", "matlab_entrypoint": "slap2_launcher", "matlab_path": []}
    experiment(bench, **own, script_parameters={"frames": 100_000})
    process = start(bench)
    bench.wait_for(lambda: "slap2_launcher.stdout frame 3" in bench.messages, 40)
    process.kill()
    process.wait()
    bench.wait_for(lambda: bench.end["outcome"] == "crashed", 40)
    assert matlab.poll() is None
    told = "slap2_launcher: what the session called may go on, and nobody can stop it from here: "
    assert f"WARNING acquisition acquisition pytest_openscope.witness {told}" in bench.messages
    bench.wait_for(lambda: (bench.folder / "saved").exists(), 40)


def test_the_operator_is_told_which_matlab_is_waited_for(bench: Any, matlab: subprocess.Popen[bytes]) -> None:
    own = {
        "matlab_engine": "matlab",
        "matlab_engine_name": "other",
        "matlab_path": [],
        "matlab_engine_connect_timeout_sec": 1.5,
    }
    experiment(bench, **own)
    result = bench.run("day1.json")
    assert result.ret == 1
    told = result.stdout.str()
    assert "waiting at most 1.5 s for a MATLAB that is shared as 'other'" in told
    assert "is not ready: no MATLAB shared as 'other' within 1.5 s: shared are slap2_launcher" in told
    assert bench.outcomes()["acquisition"] == "failed"
