"""How sessions end on Windows: by themselves, by the console's keys, by TerminateProcess, by a deadline.

The gate runs those that stand in ``gate.txt``; ``tests/windows/run --all`` runs all.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from windows_limits import wine_version

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="scenes of Windows: tests/windows/run runs them under Wine")

#: An acquisition with a child of its own, which counts frames into its output until it is stopped.
CAMERA = """
CAMERA = '''
import itertools, signal, subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", __name__])
def stop(*_):
    print("camera closed its file", flush=True)
    helper.kill()
    sys.exit(0)
signal.signal(signal.SIGBREAK, stop)
for number in itertools.count():
    print("frame", number, flush=True)
    time.sleep(0.02)
'''

@pytest.mark.post_acquisition
def test_save():
    Path("saved.txt").write_text("saved")

def test_acquire(acquisition):
    with acquisition.running(command=[sys.executable, "-c", CAMERA], name="camera"):
        Path("begun.txt").write_text("begun")
        time.sleep(600)
"""


def begin_camera(lab: Any, **keys: Any) -> Any:
    lab.rig(stop_graceful_s=10, stop_terminate_s=2, stop_kill_s=5, **keys)
    lab.steps(CAMERA)
    running = lab.begin()
    lab.wait_for(lambda: (lab.path / "begun.txt").exists())
    lab.wait_for(lambda: any(message.startswith("frame") for message in lab.messages))
    return running


def assert_frames_are_whole(lab: Any) -> None:
    """Each line of the camera is in the log, once, and in order."""
    (raw,) = lab.folder.rglob("camera.stdout.log")
    frames = [entry.message for entry in lab.log if entry.logger.endswith("stdout")]
    assert frames == raw.read_text(encoding="utf-8").splitlines()


def test_a_real_session_and_a_dry_one(lab: Any) -> None:
    lab.steps(
        """
def test_acquire(acquisition, experiment):
    logging.getLogger("lab").info("a mouse of 20 µm: \\u4eba \\U0001f42d")
    acquisition.run(command=[sys.executable, "-c", "print('frame 0')"], name="camera")
"""
    )
    real = lab.run()
    assert real.code == 0
    assert "outcome: passed" in real.text
    assert lab.end_state["outcome"] == "passed"
    assert lab.end_state["mirror"]["status"] == "off"
    assert "a mouse of 20 µm: \u4eba \U0001f42d" in lab.messages
    assert "frame 0" in lab.messages
    assert b"\r" not in (lab.folder / "launcher_metadata" / "launcher.log").read_bytes()
    lab.wait_for(lambda: not lab.processes())
    dry = lab.run("--dry-run")
    assert dry.code == 0
    (folder,) = [path for path in lab.folders if path.parent.name == "dry_runs"]
    assert lab.metadata("end_state.json", folder)["outcome"] == "passed"
    lab.wait_for(lambda: not lab.processes())


@pytest.mark.parametrize("key", ["ctrl-c", "ctrl-break"])
def test_a_key_ends_the_step_and_the_rest_runs(lab: Any, key: str) -> None:
    running = begin_camera(lab)
    running.type(key)
    finished = running.finish()
    assert finished.code == 2
    name = {"ctrl-c": "Ctrl-C", "ctrl-break": "Ctrl-Break"}[key]
    assert f"interrupted by {name}" in finished.text
    lab.wait_ended("interrupted")
    assert lab.outcomes() == {"test_acquire": "interrupted", "test_save": "passed"}
    assert (lab.path / "saved.txt").exists()
    assert_the_camera_was_stopped(lab)


def assert_the_camera_was_stopped(lab: Any) -> None:
    """With its child, gently where the system can; each of its lines is in the log."""
    assert_frames_are_whole(lab)
    if wine_version():
        assert any("terminate" in message for message in lab.messages)
    else:
        assert "camera closed its file" in lab.messages


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (2, "the console was closed"),
        pytest.param(5, "log-off", marks=pytest.mark.stress),
        pytest.param(6, "shutdown", marks=pytest.mark.stress),
    ],
)
def test_what_closes_the_console_waits_for_the_session(lab: Any, event: int, cause: str) -> None:
    running = begin_camera(lab)
    running.deliver(event)
    finished = running.finish()
    assert finished.code == 2
    assert f"interrupted by {cause}" in finished.text
    lab.wait_ended("interrupted")
    assert lab.outcomes() == {"test_acquire": "interrupted", "test_save": "passed"}
    assert_the_camera_was_stopped(lab)


@pytest.mark.stress
def test_a_console_that_closes_before_all_is_done(lab: Any) -> None:
    """Windows ends the process after five seconds, whatever it does: the sidecar goes on."""
    lab.steps(
        """
@pytest.mark.post_acquisition
def test_save():
    Path("saving.txt").write_text("x")
    time.sleep(600)

def test_acquire():
    Path("begun.txt").write_text("x")
    time.sleep(600)
"""
    )
    running = lab.begin()
    lab.wait_for(lambda: (lab.path / "begun.txt").exists())
    running.deliver(2)
    lab.wait_for(lambda: (lab.path / "saving.txt").exists())
    running.kill()
    lab.wait_ended("crashed")
    assert lab.end_state["written_by"] == "sidecar"
    assert lab.outcomes()["test_acquire"] == "interrupted"


def test_the_experiment_is_killed(lab: Any) -> None:
    running = begin_camera(lab)
    running.kill()
    lab.wait_ended("crashed")
    assert lab.debug_state["kind"] == "crash"
    assert lab.end_state["written_by"] == "sidecar"
    assert lab.end_state["exit_code"] == 15, "by the handle that the experiment has lent it"
    assert lab.messages[-1].startswith("outcome: crashed")
    assert_the_camera_was_stopped(lab)


def test_the_sidecar_is_killed_and_then_the_experiment(lab: Any) -> None:
    """The session starts another one, which finishes when the experiment dies as well."""
    running = begin_camera(lab)
    first = lab.sidecar()
    lab.kill(first)
    lab.wait_for(lambda: lab.sidecar().pid != first.pid)
    running.kill()
    lab.wait_ended("crashed")
    assert lab.debug_state["kind"] == "crash"
    assert lab.end_state["exit_code"] == 15
    assert_frames_are_whole(lab)


def test_both_are_killed_and_the_next_session_recovers(lab: Any) -> None:
    running = begin_camera(lab)
    left = running.process.children(recursive=True)
    lab.kill(lab.sidecar(), running.process)
    folder = lab.folder
    assert not (folder / "launcher_metadata" / "end_state.json").exists()
    lab.steps("def test_acquire(): pass")
    following = lab.run()
    assert following.code == 0
    assert folder.name in following.text
    assert lab.metadata("end_state.json", folder)["outcome"] == "crashed"
    assert lab.metadata("end_state.json", folder)["written_by"] == "recovery"
    lab.wait_for(lambda: not [each for each in left if each.is_running()])
    assert b"nothing to recover" in lab.tool("recover", "--rig-config", "rig.yaml").printed


def test_a_deadline_interrupts_python_and_the_sidecar_ends_a_hung_call(lab: Any) -> None:
    lab.steps(
        """
@pytest.mark.timeout(2)
def test_python():
    time.sleep(600)

@pytest.mark.timeout(2)
def test_c():
    ctypes.PyDLL("kernel32").Sleep(600_000)  # it holds the lock of the interpreter
"""
    )
    lab.rig(grace_s=15)  # on a busy computer the first interrupt may take some seconds
    assert lab.run().code != 0
    lab.wait_ended("timeout")
    assert lab.outcomes() == {"test_python": "timeout", "test_c": "timeout"}
    assert lab.end_state["written_by"] == "sidecar"


def test_the_second_start_on_one_rig_is_refused(lab: Any) -> None:
    running = begin_camera(lab)
    second = lab.run()
    assert second.code == 4
    assert "rig bench is in use by" in second.text
    assert f"pid {running.process.pid}" in second.text
    running.type("ctrl-c")
    assert running.finish().code == 2
    lab.wait_ended("interrupted")
