"""Tests that Windows cannot run, and those that Wine cannot, each with its reason. The root ``conftest.py`` skips them there.

A key names the start of a test's id. A test that is about POSIX says so beside itself where it is one of few; here stand those
of which whole groups share a reason, and all that only Wine keeps from running, with what was seen there.
"""

from __future__ import annotations

import ctypes
import sys

import pytest

#: Skipped on every Windows.
POSIX: dict[str, list[str]] = {
    "pseudo-terminals of POSIX; Windows has none that a test could type into, so there is no twin": [
        "tests/plugin/test_sessions.py::test_an_interrupt_at_the_first_question_starts_nothing_and_says_so",
        "tests/plugin/test_sessions.py::test_questions_on_a_terminal",
    ],
    "drive letters are foreign to other systems only": [
        "tests/unit/test_modules_calls.py::test_what_a_dry_run_cannot_know_is_told_apart",
    ],
}

#: Skipped under Wine alone.
WINE: dict[str, list[str]] = {
    "pyserial's list of ports asks for CM_MapCrToWin32Err, which cfgmgr32 lacks": [
        "tests/unit/test_checks_measure.py::TestPorts::test_serial",
        "tests/unit/test_devices_drivers.py::TestSerial::test_ports_that_cannot_be_listed_hide_no_error",
    ],
    "nobody tells which process holds a port (psutil.net_connections)": [
        "tests/unit/test_checks_measure.py::TestPorts::test_tcp",
        "tests/unit/test_checks_measure.py::TestPrograms::test_a_process_of_which_windows_tells_nothing",
    ],
    "performance counters and CPU times are not told (PdhAddEnglishCounterW fails)": [
        "tests/unit/test_logs_benchmarks.py::test_one_run_gives_lines_a_table_json_and_the_readme",
        "tests/unit/test_logs_benchmarks.py::test_cost_counts_the_cpu_time_of_what_is_done",
    ],
    "no CTRL_BREAK reaches a program where the standard streams are pipes (GenerateConsoleCtrlEvent: ERROR_INVALID_HANDLE); "
    "tests/windows/test_windows_endings.py has consoles": [
        "tests/unit/test_acquisition_together.py::test_when_one_fails_the_others_are_stopped_in_the_declared_order",
        "tests/unit/test_acquisition_together.py::test_without_an_order_the_last_started_is_stopped_first",
        "tests/unit/test_acquisition_together.py::test_one_that_is_killed_stops_the_others",
        "tests/unit/test_acquisition_together.py::test_each_has_limits_of_its_own",
        "tests/unit/test_acquisition_together.py::test_in_the_background_it_runs_as_long_as_the_others",
        "tests/unit/test_acquisition_together.py::test_a_stop_that_is_asked_for_stops_all_in_order",
        "tests/unit/test_acquisition_together.py::test_the_end_of_the_session_stops_all_in_order",
        "tests/unit/test_acquisition_together.py::test_a_keyboard_interrupt_stops_all_in_order",
        "tests/unit/test_acquisition_tree.py::test_a_gentle_request_is_enough",
    ],
    "of every process the CPU times of the one that asks are told (GetProcessTimes)": [
        "tests/unit/test_acquisition_run.py::test_memory_and_cpu_of_the_tree",
    ],
    "CreateSymbolicLinkW says that it made a link and makes none": [
        "tests/plugin/test_rerun.py::test_what_the_session_ran_is_run_again_where_todays_differs",
    ],
    "there is no git for Windows in the package registries": [
        "tests/unit/test_checks_measure.py::TestPrograms::test_repositories",
        "tests/plugin/test_experiment_repository.py",
        "tests/plugin/test_rerun.py::test_the_commit_of_a_session_is_run_again",
        "tests/plugin/test_sessions.py::test_what_cannot_be_known_in_a_dry_run_is_listed_and_refused_by_strict",
        "tests/plugin/test_validation.py::test_warnings_and_skips",
    ],
}


def wine_version() -> str | None:
    """Return the version of Wine that this Windows is, or None on another system."""
    if sys.platform != "win32":
        return None
    ask = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)
    if ask is None:
        return None
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


def skip_what_cannot_run(items: list[pytest.Item]) -> None:
    """Mark the tests that stand above."""
    if sys.platform != "win32":
        return
    version = wine_version()
    reasons = {start: f"POSIX: {reason}" for reason, starts in POSIX.items() for start in starts}
    if version is not None:
        reasons |= {start: f"Wine {version}: {seen}" for seen, starts in WINE.items() for start in starts}
    for item in items:
        for start, reason in reasons.items():
            if item.nodeid == start or item.nodeid.startswith((f"{start}[", f"{start}::")):
                item.add_marker(pytest.mark.skip(reason=reason))
                break
