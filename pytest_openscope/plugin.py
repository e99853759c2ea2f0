"""The pytest plugin: options, markers, and the decision whether this run is an experiment at all.

Without a rig configuration nothing but the options, markers and hooks is registered and nothing else is imported.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from . import hookspecs
from .session import add_options, rig_config_of

if TYPE_CHECKING:
    from .session import ExperimentRun


def _terminal_is_there() -> bool:
    """Tell whether stdin is a terminal; must be asked before pytest's capture replaces it."""
    try:
        there = sys.stdin is not None and sys.stdin.isatty()
    except (ValueError, OSError):
        return False
    if there and sys.platform == "win32":
        # NUL calls itself a terminal there. Python has a class of its own for consoles, unless it is told to use the old one.
        raw = getattr(getattr(sys.stdin, "buffer", None), "raw", None)
        return type(raw).__name__ == "_WindowsConsoleIO" or bool(os.environ.get("PYTHONLEGACYWINDOWSSTDIO"))
    return there


#: pytest's capture replaces stdin before any hook of a plugin runs, hence at import.
_TERMINAL = _terminal_is_there()
_RUN: pytest.StashKey[ExperimentRun] = pytest.StashKey()

_MARKERS = (
    "pre_acquisition(on_failure='abort'): this step runs before the acquisition; on_failure is abort, continue or prompt",
    "acquisition(on_failure='abort'): this step acquires data (the default for unmarked tests, with on_failure='continue')",
    "post_acquisition(on_failure='abort', after_crash=False): this step runs after the acquisition, whatever happened in it; "
    "with after_crash=True even when the session's process died",
    "rig_check(expires='24h'): this test validates the rig; its result counts until it expires",
)


#: What only an experiment has.
FIXTURES = ("rig", "experiment", "acquisition", "devices", "operator")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    if rig_config_of(early_config) is not None and not hasattr(early_config, "workerinput"):
        from .session import ExperimentRun

        early_config.stash[_RUN] = ExperimentRun(early_config, terminal=_TERMINAL)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if hasattr(config, "workerinput"):
        return
    if config.getoption("--rig-config") == "":
        raise pytest.UsageError("--rig-config: the path is empty (an unset variable?) -> give the rig file, or leave it out")
    # A run that has begun already holds OPENSCOPE_RIG_CONFIG back from the environment.
    if _RUN not in config.stash:
        if rig_config_of(config) is None:
            if config.getoption("--validate-rig"):
                raise pytest.UsageError("--validate-rig: no rig is given -> add --rig-config PATH")
            return
        from .session import ExperimentRun

        config.stash[_RUN] = ExperimentRun(config, terminal=_TERMINAL)
    config.stash[_RUN].configure()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what is missing when an experiment's steps were run as plain tests."""
    if _RUN in config.stash or hasattr(config, "workerinput"):
        return
    for report in terminalreporter.stats.get("error", ()):
        text = str(getattr(report, "longrepr", ""))
        name = next((name for name in FIXTURES if f"fixture '{name}' not found" in text), None)
        if name is not None:
            terminalreporter.ensure_newline()
            terminalreporter.write_line(
                f"openscope: this was no experiment, so there is no fixture {name!r} -> add --rig-config RIG.yaml", yellow=True
            )
            return


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is not None:
        run.unconfigure()
