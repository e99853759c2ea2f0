"""What the ready-made check tests share: the things to check, from the rig file, and how a result becomes a test outcome."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from .result import FAIL, SKIP, WARN, CheckResult

#: Set by the ready-made checks, which know more than that they passed.
RESULT = pytest.StashKey["CheckResult"]()
_log = logging.getLogger("pytest_openscope.checks")


class RigWarning(UserWarning):
    """A check that passed with a remark."""


class RigChecks:
    """The rig as the checks see it.

    Attributes:
        requirements: the rig file's ``requirements``.
        folder: the rig file's directory.
        settings: the session's settings.
    """

    def __init__(self, configuration: Any, session_uuid: str = "", rig: Any = None) -> None:
        rig = configuration.rig if rig is None else rig
        self.rig = rig
        self.settings = configuration.settings
        self.requirements: Mapping[str, Any] = rig.requirements or {}
        self.folder: Path = configuration.rig_file.parent
        self.dry_run: bool = configuration.dry_run
        self.session_uuid = session_uuid
        self._measured: dict[str, list[CheckResult]] = {}

    def things(self, kind: str) -> list[Any]:
        """Return what a check is repeated for: devices, executables, repositories, serial_ports, tcp_ports, environment."""
        if kind == "devices":
            return list(self.rig.devices or {})
        things = list(self.requirements.get(kind) or ())
        if kind == "serial_ports":
            declared = [
                options.get("port") for options in (self.rig.devices or {}).values() if options.get("driver") == "serial"
            ]
            things += [port for port in declared if isinstance(port, str) and port not in things]
        return things

    def once(self, measure: Callable[..., list[CheckResult]], *args: Any, **kwargs: Any) -> dict[str, CheckResult]:
        """Measure once for several tests, and return the results by name."""
        if measure.__name__ not in self._measured:
            self._measured[measure.__name__] = measure(*args, **kwargs)
        return {result.check: result for result in self._measured[measure.__name__]}


def report(request: pytest.FixtureRequest, result: CheckResult) -> None:
    """Turn a result into the outcome of the test that asked for it."""
    request.node.stash[RESULT] = result
    levels = {FAIL: logging.ERROR, WARN: logging.WARNING}
    _log.log(levels.get(result.status, logging.INFO), "%s", result)
    if result.status == FAIL:
        pytest.fail(str(result), pytrace=False)
    if result.status == SKIP:
        pytest.skip(result.message)
    if result.status == WARN:
        warnings.warn(RigWarning(str(result)), stacklevel=2)
