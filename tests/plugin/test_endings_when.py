"""The same endings at moments that nobody thinks of: while a session opens, in teardowns, after its last step."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from share_kit import processes_of
from test_endings_more import assert_whole, laser, write_steps

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SIGNAL_WHILE = """
import os, signal
from pytest_openscope.session import opening
real = opening.{function}
def interrupted(session):
    os.kill(os.getpid(), signal.{name})
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
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
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


@pytest.mark.parametrize("body", ["assert False, 'no signal'", "time.sleep(30)"], ids=["failure", "timeout"])
def test_a_teardown_that_hangs_after_its_step_failed_is_ended(bench: Any, body: str) -> None:
    """pytest-timeout takes its timer away at the first failure."""
    write_stage(bench, body, "time.sleep(300)")
    assert bench.run("--timeout=0.5", "--param", "grace_s=1").ret < 0
    assert_whole(bench, "timeout")
    assert "the teardown of test_acquire took longer" in str(bench.end["failures"])


@pytest.mark.parametrize("option", ["--session-timeout=0.8", "--timeout=0.8"])
def test_a_step_that_came_back_from_its_timeout_has_time_for_its_teardown(bench: Any, option: str) -> None:
    """What counts as hung begins anew: the teardown makes the hardware safe, and takes longer than ``grace_s``."""
    write_stage(bench, "time.sleep(30)", "time.sleep(1.4)")
    assert bench.run(option, "--param", "grace_s=1").ret == 1
    assert_whole(bench, "timeout")
    assert (bench.path / "homed").exists()
    assert (bench.outcomes()["test_acquire"], bench.outcomes()["test_save"]) == ("timeout", "passed")
    assert laser(bench)[-1] == "off"


def test_the_session_timeout_of_pytest_ini(bench: Any) -> None:
    """However pytest-timeout came to be loaded."""
    bench.write("pytest.ini", "[pytest]\nsession_timeout = 0.8\n")
    write_steps(bench, "time.sleep(30)")
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
