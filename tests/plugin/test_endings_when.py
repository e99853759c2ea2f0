"""The same endings at moments that nobody thinks of: while a session opens, in teardowns, after its last step."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from share_kit import processes_of
from step_kit import BY_SIDECAR, PACE
from test_endings_more import assert_whole, laser, write_steps

SIGNAL_WHILE = """
import os, signal
from pytest_openscope.session import opening
from tests.plugin.step_kit import signal_me
real = opening.{function}
def interrupted(session):
    signal_me(signal.{name})
    real(session)
opening.{function} = interrupted
"""

#: A fixture whose teardown brings a stage home.
STAGE = """
@pytest.fixture
def stage(laser):
    yield
    {teardown}
    open("homed", "w").close()

"""


def write_stage(bench: Any, body: str, teardown: str) -> None:
    """Write the usual steps, with a stage that the acquisition step uses."""
    write_steps(bench, body)
    path = bench.path / "test_experiment.py"
    text = path.read_text(encoding="utf-8").replace("(acquisition, laser, experiment)", "(stage, experiment)")
    head, mark, rest = text.partition("def test_acquire(")
    path.write_text(head + STAGE.format(teardown=teardown) + mark + rest, encoding="utf-8")


# -- signals while a session opens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["_open_log", "_write_inputs", "_describe_devices"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", *([] if sys.platform == "win32" else ["SIGHUP"])])
def test_a_signal_while_the_session_opens(bench: Any, name: str, function: str) -> None:
    """Half open it could not be ended: the signal waits, and no step runs."""
    bench.write("conftest.py", SIGNAL_WHILE.format(function=function, name=name))
    write_steps(bench)
    result = bench.run()
    assert result.ret == 2
    assert_whole(bench, "interrupted")
    assert (bench.end["exit_code"], bench.end["steps"], bench.debug["kind"]) == (2, [], "interrupt")
    assert f"interrupted by {'Ctrl-C' if name == 'SIGINT' else name}" in result.stderr.str()
    assert bench.folder.name in result.stderr.str()
    assert not list((bench.path / "state" / "unfinished").iterdir())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_before_the_session_folder_ends_the_run_at_once(bench: Any, name: str) -> None:
    """Earlier sessions are being finished, which may take long; the rig is free afterwards."""
    bench.write("conftest.py", SIGNAL_WHILE.format(function="recover_earlier", name=name))
    write_steps(bench)
    assert bench.run().ret == 2
    assert not bench.folders
    (bench.path / "conftest.py").unlink()
    assert bench.run().ret == 0
    assert_whole(bench, "passed")


def test_an_interrupt_that_passed_through_exec(bench: Any) -> None:
    """As when a dataclass was being made: CPython would end itself by SIGINT at its exit, whatever pytest's exit code."""
    write_steps(bench, "exec('raise KeyboardInterrupt')")
    assert bench.run().ret == 2
    assert_whole(bench, "interrupted")


# -- timeouts and teardowns -------------------------------------------------------------------------------------------


def test_a_timeout_that_passes_in_a_teardown_is_a_timeout(bench: Any) -> None:
    write_stage(bench, "pass", "time.sleep(1.2)")
    assert bench.run("--timeout=0.6").ret == 1
    assert_whole(bench, "timeout")
    assert (bench.path / "homed").exists()
    assert (bench.outcomes()["test_acquire"], bench.outcomes()["test_save"]) == ("timeout", "passed")
    assert laser(bench) == ["on", "off"]


HANGING = """
def hang(what):
    logging.getLogger("lab").info("%s begins to hang", what)
    time.sleep(300)

@pytest.fixture(scope="session")
def session_finalizer(request):
    request.addfinalizer(lambda: hang("session"))
    request.addfinalizer(lambda: open("first_of_session", "w").close())

@pytest.fixture(scope="module")
def module_yield():
    yield
    try:
        hang("module")
    finally:
        open("module_safe", "w").close()

@pytest.fixture(scope="class")
def class_yield():
    yield
    hang("class")

@pytest.fixture
def step_yield(laser):
    yield
    hang("step")

@pytest.fixture
def broken(step_yield):
    assert False, "no setup"

@pytest.mark.acquisition(on_failure="continue")
class TestCamera:
    def test_record(self, class_yield, module_yield, session_finalizer, laser):
        {body}

@pytest.mark.post_acquisition
def test_save(): pass

@pytest.mark.post_acquisition
def test_setup(broken): pass
"""
LASER = """
@pytest.fixture(scope="session", autouse=True)
def laser():
    with open("laser.txt", "a") as file:
        file.write("on ")
    yield
    with open("laser.txt", "a") as file:
        file.write("off ")
"""


def test_hung_finalizers_are_interrupted_and_all_others_run(bench: Any) -> None:
    """Whatever their scope and kind, after a failed setup, a failed step, Ctrl-C: none keeps another one from running."""
    bodies = ["assert False, 'no signal'", "signal_me(); time.sleep(30)"]
    bench.at_once(hung_finalizers_are_interrupted, bodies)


def hung_finalizers_are_interrupted(bench: Any, body: str) -> None:
    bench.steps(LASER + HANGING.format(body=body))
    interrupted = "signal_me" in body
    assert bench.run(f"--timeout={PACE / 2}", "--param", f"grace_s={PACE}").ret == (2 if interrupted else 1)
    assert_whole(bench, "timeout")
    hung = [entry.message.partition(" begins to hang")[0] for entry in bench.log if " begins to hang" in entry.message]
    assert hung == ["class", "step", "module", "session"]
    assert laser(bench) == ["on", "off"]
    assert (bench.path / "first_of_session").exists()
    assert (bench.path / "module_safe").exists()
    outcomes = bench.outcomes()
    assert (outcomes["test_setup"], outcomes["TestCamera.test_record"]) == ("timeout", "timeout")
    assert outcomes["test_save"] == "passed"
    assert outcomes["class_yield"] == outcomes["module_yield"] == "timeout"
    told = [failure["message"] for failure in bench.end["failures"] if failure["outcome"] == "timeout"]
    assert any(f"teardown of TestCamera.test_record took longer than {PACE} s" in text for text in told)


def test_a_finalizer_that_does_not_come_back_is_killed_and_its_step_is_on_record(bench: Any) -> None:
    """Nothing in the process can end a C call that holds the GIL."""
    write_stage(bench, "assert False, 'no signal'", "hang(300)")
    assert bench.run("--timeout=0.5", "--param", "grace_s=1").ret == BY_SIDECAR
    assert_whole(bench, "timeout")
    assert "the teardown of test_acquire took longer" in str(bench.end["failures"])
    assert bench.outcomes()["test_acquire"] == "timeout"


def test_a_step_that_came_back_from_its_timeout_has_time_for_its_teardown(bench: Any) -> None:
    """The teardown makes the hardware safe: it has ``grace_s``, whatever is left of the step's own time."""
    bench.at_once(a_teardown_has_its_own_time, [f"--session-timeout={2 * PACE}", "--timeout=0.8"])


def a_teardown_has_its_own_time(bench: Any, option: str) -> None:
    write_stage(bench, "time.sleep(90)", "time.sleep(1.2)")
    assert bench.run(option, "--param", f"grace_s={3 * PACE}").ret == 1
    assert_whole(bench, "timeout")
    assert (bench.path / "homed").exists()
    assert (bench.outcomes()["test_acquire"], bench.outcomes()["test_save"]) == ("timeout", "passed")
    assert laser(bench)[-1] == "off"


def test_a_hung_teardown_after_the_session_timeout_is_interrupted_after_the_grace_period(bench: Any) -> None:
    write_stage(bench, "time.sleep(300)", "time.sleep(300)")
    started = time.monotonic()
    assert bench.run(f"--session-timeout={4 * PACE}", "--param", f"grace_s={2 * PACE}").ret == 1
    assert time.monotonic() - started < 90
    assert_whole(bench, "timeout")
    assert bench.outcomes()["test_save"] == "passed"
    assert laser(bench)[-1] == "off"


def test_the_session_timeout_of_pytest_ini(bench: Any) -> None:
    """However pytest-timeout came to be loaded."""
    bench.write("pytest.ini", f"[pytest]\nsession_timeout = {2 * PACE}\n")
    write_steps(bench, "time.sleep(90)")
    assert bench.run().ret == 1
    assert_whole(bench, "timeout")
    assert bench.outcomes()["test_save"] == "passed"


# -- after the last step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ("def pytest_sessionfinish(session): raise RuntimeError('no database')", "no database"),
        ("def pytest_runtest_logfinish(): SESSION[0].shouldfail = 'coverage too low'", "coverage too low"),
        ("def pytest_sessionfinish(session): session.exitstatus = 1", "pytest ended with exit code 1"),
    ],
    ids=["raises", "shouldfail", "exitstatus"],
)
def test_another_plugin_that_fails_the_run_is_told(bench: Any, hook: str, told: str) -> None:
    """No session is called passed that pytest gives another exit code."""
    bench.write("conftest.py", f"SESSION = []\ndef pytest_sessionstart(session): SESSION.append(session)\n{hook}\n")
    write_steps(bench)
    assert bench.run().ret == 1
    assert_whole(bench, "error")
    assert bench.end["exit_code"] == 1
    assert told in bench.debug["exception"]
    assert not processes_of(bench.path)


def test_a_process_that_does_not_leave_is_ended_with_its_exit_code(bench: Any) -> None:
    reasons = [
        ("threading.Thread(target=time.sleep, args=(300,), name='camera').start()", "threads that do not end: camera"),
        ("import atexit; atexit.register(time.sleep, 300)", "an exit handler (atexit) does not return"),
    ]
    bench.at_once(a_process_that_does_not_leave_is_ended, reasons)


def a_process_that_does_not_leave_is_ended(bench: Any, reason: tuple[str, str]) -> None:
    body, told = reason
    write_steps(bench, body)
    result = bench.run("--param", "grace_s=1")
    assert result.ret == 0
    assert told in result.stderr.str()
    assert_whole(bench, "passed")


@pytest.mark.parametrize("when", ["import atexit; atexit.register(again)", "def pytest_unconfigure(): again()"])
def test_ctrl_c_after_the_summary_changes_nothing(bench: Any, when: str) -> None:
    bench.write("conftest.py", f"from tests.plugin.step_kit import signal_me\ndef again(): signal_me()\n{when}\n")
    write_steps(bench)
    result = bench.run()
    assert (result.ret, "Traceback" in result.stderr.str()) == (0, False)
    assert_whole(bench, "passed")


def test_a_device_that_lets_nothing_else_run_is_ended_without_a_timeout(bench: Any) -> None:
    """A C call that holds the GIL: neither its thread can be left behind nor can the session's own clock act."""
    bench.at_once(a_device_that_lets_nothing_else_run_is_ended, ["__init__", "open", "safe_state", "power"])


def a_device_that_lets_nothing_else_run_is_ended(bench: Any, method: str) -> None:
    bench.write("lab.py", f"from tests.plugin.step_kit import hang\nclass Laser:\n    def {method}(self): hang(300)\n")
    limits = "open_timeout_s: 0.3, safe_state_timeout_s: 0.3, call_timeout_s: 0.3"
    rig = (bench.path / "rig.yaml").read_text(encoding="utf-8")
    bench.write("rig.yaml", f"{rig}grace_s: 1\ndevices: {{laser: {{driver: 'lab:Laser', {limits}}}}}\n")
    bench.steps(f"def test_acquire(devices): devices['laser']{'.power()' if method == 'power' else ''}\n")
    assert bench.run().ret == BY_SIDECAR
    assert_whole(bench, "timeout")
    what = method if method in ("safe_state", "power") else "open"
    assert f"laser.{what} did not return within 0.3 s" in str(bench.end["failures"])
