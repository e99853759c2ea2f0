"""Real processes that die in every way; what is on disk afterwards."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import HOW_KILLED, KILLED, Run, Start, children_marked, eventually, kill

from pytest_openscope.sidecar.notes import crashed, mark_crashed

POSIX = sys.platform != "win32"
#: Accesses to nothing are a signal of POSIX, and 0xC0000005 on Windows.
FAULT = -11 if POSIX else 0xC0000005
#: A process that hangs is asked for its stacks by a signal before it is killed, which Windows has not.
GIVEN_UP = (-signal.SIGABRT, -signal.SIGKILL) if sys.platform != "win32" else (1,)
CAMERA = "import time\nfor n in range(5): print('frame', n, flush=True)\ntime.sleep(60)"
STEP = ["step", "acquisition", "video"]


def test_a_session_that_ends_by_itself_is_left_as_it_is(start: Start) -> None:
    run = start(["ready"], ["log", "hello"], ["end"])
    assert run.wait() == 0, run.out.read_text()
    run.finished()
    assert run.told[-1]["done"] is True
    assert run.told[-1]["mirror"]["status"] == "off"
    assert [entry.message for entry in run.entries()] == ["hello 0"]
    assert run.json("end_state.json")["outcome"] == "passed"
    assert not (run.metadata / "debug_state.json").exists()
    assert not list((run.folder.parent / "state" / "unfinished").iterdir())


@pytest.mark.parametrize(
    ("death", "code", "signal_name", "said"),
    [
        (["die"], KILLED, "SIGKILL" if POSIX else "", f"{HOW_KILLED} in acquisition step video" if POSIX else HOW_KILLED),
        (["exit", 3], 3, "", "ended with exit code 3 before its session had ended"),
        (["os_exit", 7], 7, "", "os._exit(7) was called"),
        (["segfault"], FAULT, "SIGSEGV" if POSIX else "", "ended by SIGSEGV" if POSIX else "died: access violation"),
    ],
)
def test_every_death_leaves_an_honest_ending(start: Start, death: list[Any], code: int, signal_name: str, said: str) -> None:
    run = start(["ready"], ["log", "before", 3], ["failure", "the first one"], STEP, ["sleep", 0.3], death)
    assert run.wait() == code
    run.finished()
    end, debug = run.json("end_state.json"), run.json("debug_state.json")
    assert (end["outcome"], end["exit_code"], end["written_by"]) == ("crashed", code, "sidecar")
    assert end["failures"][0]["message"] == "the first one"
    assert end["steps"][0]["outcome"] == "crashed"
    assert debug["exception"] == "the first one"
    death_found = debug["other_failures"][0]
    assert said in death_found["message"]
    assert death_found["signal"] == signal_name
    assert (death_found["phase"], death_found["step"], death_found["kind"]) == ("acquisition", "video", "crash")
    assert debug["resource_samples"]
    assert any("before 2" in line for line in debug["last_log_lines"])
    if death == ["segfault"]:
        assert "do_segfault" in death_found["faulthandler"]
    if death[0] == "os_exit":
        assert "step.py" in death_found["traceback"]
    assert run.messages("pytest_openscope.session")[-1] == f"outcome: crashed, exit code {code}, lost log records 0"
    assert not list((run.folder.parent / "state" / "unfinished").iterdir())


def test_the_acquisition_is_stopped_and_its_last_lines_are_taken_once(start: Start) -> None:
    plan = [["ready"], STEP, ["acquire", CAMERA], ["sleep", 0.4], ["batch", ["frame 0", "frame 1"], 0], ["die"]]
    run = start(*plan)
    run.wait()
    assert eventually(lambda: not list(children_marked(run.folder)))
    run.finished()
    lines = run.messages("acquisition.stdout") + run.messages("acquisition.camera.stdout")
    assert [line for line in lines if line.startswith("frame")] == [f"frame {number}" for number in range(5)]
    assert any("stopped camera" in line for line in run.messages("pytest_openscope.witness"))
    assert run.json("end_state.json")["acquisitions"][0]["stop_reason"] == "the experiment process died"


def test_a_process_that_was_not_named_yet_is_found_by_its_mark(start: Start) -> None:
    run = start(["ready"], STEP, ["acquire", CAMERA, "camera", False], ["sleep", 0.4], ["die"])
    run.wait()
    run.finished()
    assert not list(children_marked(run.folder))
    frames = [entry.message for entry in run.entries() if entry.message.startswith("frame")]
    assert frames == [f"frame {number}" for number in range(5)]
    (acquisition,) = run.json("end_state.json")["acquisitions"]
    assert acquisition["pid"] > 0


def test_a_process_that_never_came_to_be_is_no_acquisition(start: Start) -> None:
    run = start(["ready"], STEP, ["starting"], ["die"])
    run.wait()
    run.finished()
    assert run.json("end_state.json")["acquisitions"] == []


def test_on_crash_leave_lets_the_acquisition_go_on(start: Start) -> None:
    run = start(["ready"], STEP, ["acquire", CAMERA], ["sleep", 0.3], ["die"], on_crash="leave")
    run.wait()
    run.finished()
    assert list(children_marked(run.folder))
    assert any("goes on: on_crash is leave" in line for line in run.messages("pytest_openscope.witness"))


def test_a_stubborn_tree_with_a_detached_grandchild_is_killed(start: Start) -> None:
    child = "import signal as s,time;s.signal(s.SIGINT,s.SIG_IGN);s.signal(s.SIGTERM,s.SIG_IGN);time.sleep(60)"
    code = (
        f"import subprocess,sys,time\nsubprocess.Popen([sys.executable,'-c',{child!r}],start_new_session=True)\ntime.sleep(60)"
    )
    stop = {"graceful_s": 0.3, "terminate_s": 0.3, "kill_s": 1.0}
    run = start(["ready"], STEP, ["acquire", code], ["sleep", 0.6], ["die"], stop=stop)
    run.wait()
    run.finished()
    assert not list(children_marked(run.folder))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_devices_are_made_safe_in_reverse_order(start: Start) -> None:
    plan = [
        ["ready"],
        ["safe_state", "laser", python("print('laser', file=open('order', 'a')); print('off')")],
        ["safe_state", "shutter", python("print('shutter', file=open('order', 'a')); raise SystemExit(4)")],
        ["safe_state", "stage", python("import time; time.sleep(60)"), 0.3],
        ["die"],
    ]
    run = start(*plan)
    run.wait()
    run.finished()
    assert (run.folder / "order").read_text().split() == ["shutter", "laser"]
    problems = " ".join(run.json("end_state.json")["helper_failures"])
    assert "shutter may not be safe: its command ended with 4" in problems
    assert "stage may not be safe: its command did not end within 0.3 s" in problems
    assert "laser" not in problems
    ((note, text),) = crashed(run.folder.parent / "state")
    assert text == f"session s1 crashed; stage, shutter may not be safe: see {run.metadata / 'safe_state.log'}"
    mark_crashed(note.parent.parent, "s1", "timeout", ["laser", "stage"], run.folder)
    ((_, text),) = crashed(run.folder.parent / "state")
    assert text == f"session s1 timeout; stage, shutter, laser may not be safe: see {run.folder}"


def test_a_call_that_holds_the_gil_is_ended_at_its_deadline(start: Start) -> None:
    run = start(["ready"], STEP, ["deadline", 0.5, "step video timed out after 0.2 s"], ["hold_gil", 60])
    assert run.wait(60.0) in GIVEN_UP
    run.finished()
    end, debug = run.json("end_state.json"), run.json("debug_state.json")
    assert (end["outcome"], end["failures"][0]["kind"]) == ("timeout", "timeout")
    assert "step video timed out after 0.2 s: the experiment process did not come back and was killed" in debug["exception"]
    if sys.platform != "win32":  # There the sidecar cannot ask for the stacks.
        assert "do_hold_gil" in debug["faulthandler"]
    assert end["steps"][0]["outcome"] == "timeout"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is the disk that takes nothing")
def test_a_full_disk_under_the_sidecars_own_log_keeps_it_from_nothing(start: Start, tmp_path: Path) -> None:
    metadata = tmp_path / "full" / "launcher_metadata"
    metadata.mkdir(parents=True)
    (metadata / "sidecar.log").symlink_to("/dev/full")
    run = Run(metadata.parent, [["ready"], STEP, ["deadline", 0.5, "step video timed out"], ["hold_gil", 60]])
    assert run.wait(60.0) in GIVEN_UP
    assert run.finished().json("end_state.json")["outcome"] == "timeout"


def test_a_deadline_that_was_taken_back_kills_nobody(start: Start) -> None:
    run = start(["ready"], ["deadline", 0.4], ["sleep", 0.1], ["no_deadline"], ["sleep", 0.8], ["end"])
    assert run.wait() == 0
    assert run.finished().json("end_state.json")["outcome"] == "passed"


def test_a_worker_that_holds_the_pipe_open_hides_no_death(start: Start) -> None:
    run = start(["ready"], ["spawn_holder"], ["die"])
    run.wait()
    worker = psutil.Process(run.told[0]["worker"])
    try:
        run.finished()  # The worker would hold the pipe for 5 minutes.
        assert worker.is_running()
    finally:
        worker.kill()
    assert run.json("end_state.json")["outcome"] == "crashed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_disturbs_nothing(start: Start) -> None:
    run = start(["ready"], ["fork_worker"], ["log", "on"], ["end"])
    assert eventually(lambda: run.view.finished)
    kill(run.told[0]["worker"])
    assert run.wait() == 0
    assert run.told[-1]["done"] is True


def test_a_killed_sidecar_is_started_once_more(start: Start) -> None:
    run = start(["ready"], ["tell"], ["kill_sidecar"], ["sleep", 0.5], ["ready"], ["tell"], STEP, ["die"])
    run.wait()
    run.finished()
    assert run.told[0]["pid"] != run.told[1]["pid"]
    assert run.told[1]["restarted"] is True
    assert run.json("end_state.json")["outcome"] == "crashed"


def test_after_a_second_death_the_experiment_goes_on_alone(start: Start) -> None:
    again = [["kill_sidecar"], ["sleep", 0.5]]
    run = start(["ready"], *again, *again, ["tell"], ["log", "on"], ["end"])
    assert run.wait() == 0, run.out.read_text()
    assert run.told[0]["gave_up"]
    assert run.told[-1]["done"] is False
    assert [message["type"] for message in run.told[-1]["messages"] if message["type"] != "ready"] == ["restarted", "gave_up"]


def test_a_death_while_the_session_was_ending_is_told(start: Start) -> None:
    run = start(["ready"], ["log", "x"], ["ending", "passed"], ["die"])
    run.wait()
    run.finished()
    assert "while the session was ending (its outcome was passed)" in run.json("debug_state.json")["exception"]
    assert run.json("end_state.json")["outcome"] == "crashed"


def test_secrets_are_masked_in_what_the_witness_writes(start: Start) -> None:
    run = start(
        ["ready"],
        ["failure", "login with s3cr3t-value failed"],
        STEP,
        ["acquire", "print('s3cr3t-value')"],
        ["sleep", 0.3],
        ["die"],
    )
    run.wait()
    run.finished()
    for name in ("launcher.log", "end_state.json", "debug_state.json"):
        assert "s3cr3t-value" not in (run.metadata / name).read_text()
    for name in ("witness.jsonl", "sidecar.log"):
        assert "s3cr3t-value" not in (run.metadata / name).read_text()


def test_the_rig_lock_is_held_until_the_states_are_written(start: Start) -> None:
    from pytest_openscope.system.locks import FileLock

    slow = "import signal,time\nsignal.signal(signal.SIGINT,lambda *_: (time.sleep(0.5), exit(0)))\ntime.sleep(60)"
    run = start(["ready"], STEP, ["acquire", slow], ["sleep", 0.4], ["die"])
    run.wait()
    lock = FileLock(run.folder.parent / "state" / "rig.sidecar.lock")
    assert not lock.acquire()
    assert lock.acquire(60.0, 0.02)
    assert run.json("end_state.json")["outcome"] == "crashed"
    lock.release()


@pytest.mark.skipif(
    sys.platform == "win32", reason="signals of POSIX; consoles of Windows: tests/windows/test_windows_endings.py"
)
def test_ctrl_c_and_sigterm_do_not_reach_the_sidecar(start: Start) -> None:
    run = start(["ready"], ["tell"], ["sleep", 2.0], ["end"])
    pid = eventually(run.sidecars)[0]
    assert os.getsid(pid) == pid
    time.sleep(1.0)  # It has begun by then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    assert run.wait() == 0
    assert run.told[0]["restarted"] is False
    assert run.told[-1]["done"] is True
