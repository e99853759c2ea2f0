"""Every way in which a session can end: what is killed and when, and what is then on the disk."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from share_kit import living_processes, works_in
from step_kit import BY_SIDECAR, KILL_CODE, PACE

WINDOWS = sys.platform == "win32"

#: A session with a laser that must be off at the end, an acquisition that writes frames, and post-acquisition.
EXPERIMENT = """
LOG = open("laser.txt", "a", buffering=1)

@pytest.fixture(scope="session")
def laser():
    LOG.write("on\\n")
    yield
    LOG.write("off\\n")

@pytest.mark.pre_acquisition
def test_check():
    {pre}

CAMERA = [sys.executable, "-u", "-c", "import time\\nfor i in range(3000): print('frame', i); time.sleep(0.01)"]

def watched(experiment):
    # Until the sidecar watches this process: how one died before cannot be known once its parent has taken the status.
    while not (experiment.session_folder / "launcher_metadata/resource_usage.json").exists():
        time.sleep(0.01)

def test_acquire(acquisition, laser, request, experiment):
    {body}

def test_acquire_more():
    pass

@pytest.mark.post_acquisition
def test_save(laser):
    {post}
"""

RUNNING = "with acquisition.running(command=CAMERA, name='camera') as camera:\n        time.sleep(0.3)\n        "


@dataclass(frozen=True)
class Ending:
    """What the acquisition step does, and what must be there afterwards."""

    body: str = "pass"
    outcome: str = "passed"
    code: int = 0
    pre: str = "pass"
    post: str = "pass"
    flags: tuple[str, ...] = ()
    kind: str = ""
    text: str = ""
    saved: bool = True
    laser_off: bool = True
    about_posix: str = ""


KILLED = {"saved": False, "laser_off": False}
KILL_TEXT = f"exit code {KILL_CODE}" if WINDOWS else "SIGKILL"
FAST = ("--param", "grace_s=1")
ENDINGS = {
    "all steps pass": Ending(),
    "acquisition passes": Ending("acquisition.run(command=[sys.executable, '-c', 'print(1)'])"),
    "assertion fails": Ending("assert False, 'no signal'", "failed", 1, kind="exception", text="no signal"),
    "acquisition exits with 3": Ending(
        "acquisition.run(command=[sys.executable, '-c', 'import sys; sys.exit(\"bad camera\")'])",
        "failed",
        1,
        kind="acquisition",
        text="bad camera",
    ),
    "acquisition is killed by a signal": Ending(
        RUNNING + "os.kill(camera.pid, signal.SIGSEGV); camera.wait()",
        "failed",
        1,
        kind="acquisition",
        text="ended with exit code 11" if WINDOWS else "SIGSEGV",
    ),
    "acquisition program is missing": Ending(
        "acquisition.run(command=['no-such-program'])", "failed", 1, kind="acquisition", text="no-such-program"
    ),
    "acquisition runs too long": Ending(
        "acquisition.run(command=CAMERA, timeout_s=0.5)", "timeout", 1, kind="timeout", text="timeout_s = 0.5"
    ),
    "pre-acquisition step fails": Ending(
        pre="assert False, 'shutter'", outcome="failed", code=1, kind="exception", text="shutter", saved=False
    ),
    "post-acquisition step fails": Ending(post="assert False, 'disk'", outcome="failed", code=1, kind="exception", text="disk"),
    "test times out": Ending(
        "time.sleep(30)", "timeout", 1, flags=("--timeout=0.5",), kind="timeout", text="took longer than 0.5"
    ),
    "test times out (thread method)": Ending(
        "time.sleep(30)", "timeout", 1, flags=("--timeout=0.5", "--timeout-method=thread"), kind="timeout"
    ),
    # Before Python 3.14 no lock of Windows can be interrupted: the sidecar ends what waits for one.
    "lock wait times out": Ending("threading.Event().wait(30)", "timeout", 1, flags=("--timeout=0.5",), kind="timeout")
    if not WINDOWS or sys.version_info >= (3, 14)
    else Ending("threading.Event().wait(90)", "timeout", BY_SIDECAR, flags=("--timeout=0.5", *FAST), text="killed", **KILLED),
    "acquisition outlives the test's timeout": Ending(
        "acquisition.run(command=CAMERA)", "timeout", 1, flags=("--timeout=0.7",), kind="timeout"
    ),
    "session times out": Ending("time.sleep(90)", "timeout", 1, flags=(f"--session-timeout={2 * PACE}",), kind="timeout"),
    "timeout is swallowed once": Ending(
        "try:\n        time.sleep(30)\n    except BaseException:\n        time.sleep(30)",
        "timeout",
        1,
        flags=("--timeout=0.5",),
        kind="timeout",
    ),
    "C call holds the GIL": Ending("hang(90)", "timeout", BY_SIDECAR, flags=("--timeout=0.5", *FAST), text="killed", **KILLED),
    "C call hangs with an acquisition": Ending(
        RUNNING + "hang(90)", "timeout", BY_SIDECAR, flags=("--timeout=1", *FAST), text="killed", **KILLED
    ),
    "Ctrl-C": Ending("signal_me(); time.sleep(30)", "interrupted", 2, kind="interrupt", text="Ctrl-C"),
    "Ctrl-C during an acquisition": Ending(
        "threading.Timer(0.4, signal_me).start(); acquisition.run(command=CAMERA)",
        "interrupted",
        2,
        kind="interrupt",
    ),
    "SIGTERM": Ending("signal_me(signal.SIGTERM); time.sleep(30)", "interrupted", 2, kind="interrupt", text="SIGTERM"),
    "SIGHUP": Ending(
        "signal_me(signal.SIGHUP); time.sleep(30)",
        "interrupted",
        2,
        kind="interrupt",
        text="SIGHUP",
        about_posix="Windows has no SIGHUP; its twin is test_windows_endings.py, where a console is closed",
    ),
    "Ctrl-C twice": Ending(
        "try:\n        signal_me(); time.sleep(30)\n    finally:\n        signal_me()",
        "interrupted",
        2,
        kind="interrupt",
        saved=False,
    ),
    "Ctrl-C in pre-acquisition": Ending(
        pre="signal_me(); time.sleep(30)", outcome="interrupted", code=2, kind="interrupt", saved=False
    ),
    "KeyboardInterrupt raised by a step": Ending("raise KeyboardInterrupt", "interrupted", 2, kind="interrupt"),
    "pytest.exit": Ending("pytest.exit('enough', 9)", "interrupted", 9, kind="interrupt", text="enough"),
    "sys.exit": Ending("sys.exit(3)", "failed", 1, text="SystemExit"),
    "SystemExit": Ending("raise SystemExit('x')", "failed", 1, text="SystemExit"),
    "GeneratorExit": Ending("raise GeneratorExit", "failed", 1, text="GeneratorExit"),
    "endless recursion": Ending("def f(): f()\n    f()", "failed", 1, text="recursion"),
    # One by one in test_sessions.test_the_log_survives_hostile_steps.
    "output closed, logging turned off": Ending(
        "sys.stdout.close(); os.close(2); logging.getLogger().handlers[:] = [logging.NullHandler()]\n"
        "    logging.basicConfig(force=True); logging.shutdown()"
    ),
    "fixture fails at teardown": Ending("request.addfinalizer(lambda: 1 / 0)", "error", 1, text="division by zero"),
    "os._exit": Ending("os._exit(7)", "crashed", 7, text="os._exit(7)", **KILLED),
    "SIGKILL": Ending("kill_me()", "crashed", KILL_CODE, text=KILL_TEXT, **KILLED),
    "SIGKILL during an acquisition": Ending(RUNNING + "kill_me()", "crashed", KILL_CODE, text=KILL_TEXT, **KILLED),
    "SIGKILL with a forked worker that lives on": Ending(
        "pid = os.fork()\n    if pid == 0:\n        time.sleep(3); os._exit(0)\n    os.kill(os.getpid(), signal.SIGKILL)",
        "crashed",
        -9,
        text="experiment process",
        about_posix="Windows has no fork",
        **KILLED,
    ),
    "segmentation fault": Ending(
        "read_null()",
        "crashed",
        0xC0000005 if WINDOWS else -11,
        text="access violation" if WINDOWS else "SIGSEGV",
        **KILLED,
    ),
    "abort": Ending("os.abort()", "crashed", 3 if WINDOWS else -6, text="SIGABRT", **KILLED),
}


@pytest.mark.parametrize("name", list(ENDINGS))
def test_ending(bench: Any, name: str) -> None:
    ending = ENDINGS[name]
    if WINDOWS and ending.about_posix:
        pytest.skip(ending.about_posix)
    body = f"watched(experiment)\n    {ending.body}" if ending.outcome == "crashed" else ending.body
    bench.steps(EXPERIMENT.format(pre=ending.pre, body=body, post=ending.post))
    with open(bench.path / "output.txt", "wb") as output:
        process = bench.start(*ending.flags, stdout=output, stderr=output)
        code = process.wait(100)
    printed = (bench.path / "output.txt").read_text(errors="replace")
    assert code == ending.code, printed
    end = bench.wait_for(lambda: bench.end["outcome"] is not None and bench.end)
    assert end["outcome"] == ending.outcome, printed
    assert end["stop_time"]
    bench.wait_for(lambda: bench.log[-1].message.startswith(f"outcome: {ending.outcome}"))
    assert bench.has_debug == (ending.outcome != "passed")
    if ending.outcome != "passed":
        debug = bench.debug
        assert ending.text in debug["exception"] + debug["traceback"] + str(debug["failure"])
        assert not ending.kind or debug["kind"] == ending.kind
        assert debug["last_log_lines"]
    steps = {step["name"]: step["outcome"] for step in end["steps"]}
    if ending.saved:
        assert steps["test_save"] == ("failed" if ending.post != "pass" else "passed")
    else:
        assert steps.get("test_save") is None
    if ending.laser_off and (bench.path / "laser.txt").read_text():
        assert (bench.path / "laser.txt").read_text() == "on\noff\n"
    assert_no_process_of(bench)


def assert_no_process_of(bench: Any) -> None:
    """Neither camera nor sidecar may be left."""

    def left() -> list[Any]:
        return [
            process
            for process, line in living_processes()
            if ("sidecar" in line and str(bench.path) in line) or ("frame" in line and works_in(process, bench.path))
        ]

    bench.wait_for(lambda: not left())


def test_the_power_cut_is_finished_by_the_next_session(bench: Any) -> None:
    """Experiment process and sidecar die at once; nothing is left to write an ending."""
    bench.steps(
        "def test_acquire(experiment):\n    logging.getLogger('lab').info('last words')\n    if not os.path.exists('second'):\n"
        "        open('first', 'w').close(); time.sleep(60)\n"
    )
    first = bench.start()
    bench.wait_for((bench.path / "first").exists)
    folder = bench.folder

    def sidecars() -> list[Any]:
        return [child for child in psutil.Process(first.pid).children() if "sidecar" in " ".join(child.cmdline())]

    bench.wait_for(sidecars)
    bench.wait_for(lambda: (folder / "launcher_metadata" / "resource_usage.json").exists())
    # A stopped process cannot start its sidecar anew before it dies too.
    psutil.Process(first.pid).suspend()
    victims = [*sidecars(), psutil.Process(first.pid)]
    for process in victims:
        process.kill()
    first.wait(100)
    assert not psutil.wait_procs(victims[:-1], timeout=100)[1]
    assert not (folder / "launcher_metadata" / "end_state.json").exists()
    (bench.path / "second").touch()
    result = bench.run()
    assert result.ret == 0
    assert folder.name in result.stdout.str()

    def ended() -> Any:
        return json.loads((folder / "launcher_metadata" / "end_state.json").read_text())["outcome"] == "crashed"

    bench.wait_for(ended)
    assert (folder / "launcher_metadata" / "debug_state.json").exists()
    assert "last words" in (folder / "launcher_metadata" / "launcher.log").read_text()
