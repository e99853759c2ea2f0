"""The data are saved even when the experiment process died: what post-acquisition had not done is done after it, once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import warm

#: 9 is SIGKILL, and on Windows the exit code of a process that TerminateProcess ends.
SCRIPT = """
import json, os, pathlib
from pathlib import Path

def run_post_acquisition(params):
    folder = Path(params["output_session_folder"])
    kind = Path(__file__).stem
    with open(folder / "done.txt", "a", encoding="utf-8") as stream:
        stream.write(f"{kind} {os.getpid()} {params['subject_id']} {folder.name} {params.get('gain')}\\n")
    if kind == "dies":
        os.kill(os.getpid(), 9)
    if kind == "fails":
        raise ValueError("the table has no rows")
    return True
"""
TESTS = """
import os
import pytest

def test_acquire(experiment):
    (experiment.session_folder / "data.bin").write_bytes(bytes(100))
    experiment.measure("frames", 100)
    kill_me()

@pytest.mark.post_acquisition(after_crash=True)
def test_convert(experiment):
    assert experiment.outcome == "crashed"
    assert experiment.failures[0].kind == "crash"
    data = (experiment.session_folder / "data.bin").read_bytes()
    experiment.measure("size", len(data))
    experiment.note(f"converted for {experiment.subject_id}")
    (experiment.session_folder / "converted.bin").write_bytes(data)

@pytest.mark.post_acquisition(after_crash=True)
def test_lamp(devices):
    devices["lamp"]

@pytest.mark.post_acquisition
def test_not_marked(experiment):
    (experiment.session_folder / "never.bin").touch()
"""


def entries(bench: Any, *names: str, **parameters: object) -> None:
    """A parameter file whose acquisition kills the experiment process, with these script modules after it."""
    for name in names:
        bench.write(f"{name}.py", SCRIPT)
    killer = "import os, time; os.kill(os.getppid(), 9); time.sleep(60)"
    content = {
        "launcher": "command",
        "command": [sys.executable, "-c", killer],
        "post_acquisition_pipeline": [{"module_type": "script_module", "module_path": f"{name}.py"} for name in names],
        "on_crash": "stop",
        "stop_graceful_s": 0.2,
        **parameters,
    }
    bench.write("day1.json", json.dumps(content))


def done(bench: Any) -> list[list[str]]:
    path = bench.folder / "done.txt"
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _resume(bench: Any, folder: object) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, "-m", "pytest_openscope", "resume", folder], cwd=bench.path)


def rescued(bench: Any) -> Any:
    return bench.end.get("rescued")


def test_entries_run_after_the_process_was_killed(bench: Any) -> None:
    """Each once; one that kills its process too is not run again, and those after it run all the same."""
    bench.write(
        "rig.yaml",
        "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\ncentralized_log_directory: "
        f"{bench.path / 'central'}\n",
    )
    entries(bench, "one", "dies", "fails", "last")
    bench.run("day1.json", "--param", "gain=3")
    end = bench.wait_for(lambda: rescued(bench) and bench.end)
    assert [line[0] for line in done(bench)] == ["one", "dies", "fails", "last"]
    assert {tuple(line[2:]) for line in done(bench)} == {("mouse7", bench.folder.name, "3")}
    assert end["rescued"] == {"steps": ["one", "dies", "fails", "last"], "outcome": "crashed", "problem": ""}
    assert end["outcome"] == "crashed"
    outcomes = {step["name"]: step["outcome"] for step in end["steps"] if step["phase"] == "post_acquisition"}
    assert outcomes == {"one": "passed", "dies": "crashed", "fails": "failed", "last": "passed"}
    assert end["failures"][0]["kind"] == "crash"
    assert "the table has no rows" in end["failures"][1]["message"]
    assert "the table has no rows" in bench.debug["other_failures"][0]["message"]
    assert "post-acquisition after the crash: fails failed, last passed" in bench.messages
    assert "the process that ran it ended in step dies" in bench.messages
    # The mirror has it all, and says so.
    bench.wait_for(lambda: bench.end["mirror"]["status"] == "verified")
    (copy,) = (bench.path / "central").rglob(f"*{bench.folder.name}*/launcher.log")
    assert copy.read_bytes() == (bench.folder / "launcher_metadata" / "launcher.log").read_bytes()
    bench.wait_for(lambda: not list((bench.path / "state" / "unfinished").glob("*")))


def test_marked_tests_run_without_devices(bench: Any) -> None:
    bench.steps(TESTS)
    bench.run("--junitxml", "report.xml")
    bench.wait_for(lambda: rescued(bench))
    end = bench.end
    assert bench.outcomes() == {"test_acquire": "crashed", "test_convert": "passed", "test_lamp": "error"}
    assert (bench.folder / "converted.bin").stat().st_size == 100
    assert not (bench.folder / "never.bin").exists()
    assert [one["name"] for one in end["measurements"]] == ["frames", "size"]
    assert end["notes"] == ["converted for mouse7"]
    assert "there are no devices after a crash" in json.dumps(end["failures"])
    assert not (bench.path / "report.xml").exists()  # the one of the whole run is not written over by that of the rest


def test_nothing_where_it_is_turned_off_or_no_acquisition_had_begun(bench: Any) -> None:
    entries(bench, "one", after_crash="nothing")
    bench.run("day1.json")
    bench.wait_for(lambda: bench.end["outcome"] == "crashed" and not list((bench.path / "state" / "unfinished").glob("*")))
    assert done(bench) == []
    first = bench.folder
    bench.write("early.py", "import os\ndef run_pre_acquisition():\n    os.kill(os.getpid(), 9)\n")
    entries(bench, "one", pre_acquisition_pipeline=[{"module_type": "script_module", "module_path": "early.py"}])
    bench.run("day1.json", "--wait-for-rig", "20")
    (second,) = set(bench.folders) - {first}
    bench.wait_for(lambda: not list((bench.path / "state" / "unfinished").glob("*")))
    assert json.loads((second / "launcher_metadata" / "end_state.json").read_text())["outcome"] == "crashed"
    assert not (second / "done.txt").exists()


def _kill_sidecar_too(bench: Any, *arguments: str) -> Path:
    """A power cut: the experiment process and its sidecar die at one moment, before anybody could finish anything."""
    bench.write(
        "dies_twice.py",
        "import os, signal, psutil\nparent = psutil.Process(os.getppid())\n"
        "(sidecar,) = [one for one in parent.children() if 'pytest_openscope.sidecar' in ' '.join(one.cmdline())]\n"
        "sidecar.suspend()\nparent.kill()\nsidecar.kill()\n",
    )
    bench.run("day1.json", *arguments)
    folder: Path = bench.folder
    assert not (folder / "done.txt").exists()
    return folder


def test_after_a_power_cut_resume_does_it_and_the_next_session_too(bench: Any) -> None:
    entries(bench, "one", "fails", command=[sys.executable, "dies_twice.py"])
    folder = _kill_sidecar_too(bench)
    resumed = _resume(bench, folder)
    assert resumed.returncode == 1, resumed.stdout + resumed.stderr  # a step failed
    assert [line[0] for line in done(bench)] == ["one", "fails"]
    assert rescued(bench)["outcome"] == "failed"
    again = _resume(bench, folder)
    assert again.returncode == 0
    assert "no step of post-acquisition is left to run" in again.stdout
    assert len(done(bench)) == 2

    entries(bench, "one", "last", command=[sys.executable, "dies_twice.py"], output_root_folder="second")
    bench.run("day1.json")
    (second,) = (path for path in (bench.path / "second").iterdir() if path.name != "dry_runs")
    entries(bench, command=[sys.executable, "-c", "pass"], output_root_folder="third")
    bench.run("day1.json")
    end = second / "launcher_metadata" / "end_state.json"
    bench.wait_for(lambda: json.loads(end.read_text()).get("rescued"))
    assert [line.split()[0] for line in (second / "done.txt").read_text().splitlines()] == ["one", "last"]


def test_a_killed_rescue_goes_on_with_what_is_left(bench: Any) -> None:
    """The sidecar dies in the middle of a step of the rescue; the step ends by itself, and resume runs the rest once."""
    entries(bench, "slow", "last")
    bench.write(
        "slow.py",
        SCRIPT.replace(
            "    return True",
            "    import time\n    while not (folder / 'go').exists():\n        time.sleep(0.05)\n    return True",
        ),
    )
    bench.run("day1.json")
    bench.wait_for(lambda: done(bench))
    step = psutil.Process(int(done(bench)[0][1]))
    sidecar = step.parent()
    assert sidecar is not None
    sidecar.kill()
    resuming = warm.start([sys.executable, "-m", "pytest_openscope", "resume", str(bench.folder)])
    (bench.folder / "go").touch()
    assert resuming.wait(60) == 0
    assert [line[0] for line in done(bench)] == ["slow", "last"]
    assert rescued(bench) == {"steps": ["slow", "last"], "outcome": "passed", "problem": ""}


def test_what_cannot_be_resumed_is_said(bench: Any) -> None:
    bench.steps("def test_it(experiment):\n    pass\n")
    bench.run()
    told = _resume(bench, bench.folder)
    assert (told.returncode, "its process did not die" in told.stdout) == (0, True)
    told = _resume(bench, "nowhere")
    assert (told.returncode, "is no session folder" in told.stderr) == (4, True)
