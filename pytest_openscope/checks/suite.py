"""What the ready-made check tests share: the things to check, from the rig file, and how a result becomes a test outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ..config import Requirements, check
from ..records import Mistake
from .measure import Access
from .result import FAIL, SKIP, WARN, CheckResult, group_of

#: Set by the ready-made checks, which know more than that they passed.
RESULT = pytest.StashKey["CheckResult"]()
#: What a ready-made check is called, whatever becomes of it.
NAME = pytest.StashKey[str]()
#: Checks that are repeated for everything that the rig file declares: argument of the test, and group.
REPEATED = {
    "device_name": "devices",
    "executable": "executables",
    "launcher": "acquisition",
    "repository": "repositories",
    "serial_port": "serial_ports",
    "tcp_port": "tcp_ports",
    "variable": "environment",
}
#: What a dry run fails for; it runs on another PC than the rig's, whose disk and programs say nothing about the rig.
_OF_ANY_PC = ("configuration", "devices", "python", "acquisition")
_log = logging.getLogger("pytest_openscope.checks")
Within = Callable[[float, str], AbstractContextManager[None]]


class RigChecks:
    """The rig as the checks see it.

    Attributes:
        requirements: the rig file's ``requirements``, typed, with every placeholder replaced.
        mistakes: what is wrong with them, and could be seen only once the placeholders were replaced.
        within: a context manager that fails the running test after so many seconds, with so many words.
        acquisition: what is wrong with the acquisition that the parameters describe: mistakes, and warnings.
        access: what failure reports would meet at GitHub.
    """

    def __init__(
        self,
        configuration: Any,
        session_uuid: str = "",
        rig: Any = None,
        *,
        notices: Sequence[str] = (),
        within: Within | None = None,
        acquisition: Callable[[], tuple[Sequence[Mistake], Sequence[Mistake]]] = lambda: ((), ()),
        access: Access = lambda settings, limit_s: (),
    ) -> None:
        rig = configuration.rig if rig is None else rig
        self.rig = rig
        self.settings = configuration.settings
        self.notices = tuple(notices)
        self.within: Within = within or (lambda seconds, words: nullcontext())
        self.acquisition = acquisition
        self.access = access
        self.rig_file: Path = configuration.rig_file
        self.folder = self.rig_file.parent
        self.dry_run: bool = configuration.dry_run
        self.session_uuid = session_uuid
        read, mistakes = check(Requirements, rig.requirements or {}, rig.path.name, "requirements")
        self.requirements: dict[str, Any] = dict(read)
        self.mistakes = tuple(str(mistake) for mistake in mistakes)
        self._measured: dict[str, dict[str, CheckResult]] = {}

    def things(self, kind: str) -> list[Any]:
        """Return what a check is repeated for: devices, acquisition, or what the requirements list under this name."""
        if kind == "devices":
            return list(self.rig.devices or {})
        if kind == "acquisition":
            if self.settings.acquisitions:
                return ["several"]
            return [self.settings.launcher] if self.settings.launcher != "base" else []
        things = list(self.requirements.get(kind) or ())
        if kind == "serial_ports":
            drivers = (self.rig.devices or {}).values()
            declared = [options.get("port") for options in drivers if options.get("driver") == "serial"]
            things += [port for port in declared if isinstance(port, str) and port]
        return list(dict.fromkeys(things))

    def once(self, measure: Callable[..., dict[str, CheckResult]], *args: Any) -> dict[str, CheckResult]:
        """Measure once for several tests, and return the results by the part of the name that tells them apart."""
        if measure.__name__ not in self._measured:
            self._measured[measure.__name__] = measure(*args)
        return self._measured[measure.__name__]


def things_of(configuration: Any) -> dict[str, list[Any]]:
    """Return what each repeated check is repeated for, before a session has begun."""
    from ..config import expand_rig

    checks = RigChecks(configuration, rig=expand_rig(configuration.rig, configuration.expander()))
    return {kind: checks.things(kind) for kind in REPEATED.values()}


def report(request: pytest.FixtureRequest, result: CheckResult, dry_run: bool) -> None:
    """Turn a result into the outcome of the test that asked for it; in a dry run, what this PC lacks is a warning."""
    result = replace(result, check=request.node.stash[NAME])
    if dry_run and result.status == FAIL and group_of(result.check) not in _OF_ANY_PC:
        result = replace(result, status=WARN, message=f"{result.message} (on this PC; a dry run does not need it)")
    request.node.stash[RESULT] = result
    request.node.user_properties.append(("rig_check", str(result)))
    levels = {FAIL: logging.ERROR, WARN: logging.WARNING}
    _log.log(levels.get(result.status, logging.INFO), "%s", result)
    if result.status == FAIL:
        pytest.fail(str(result), pytrace=False)
    if result.status == SKIP:
        pytest.skip(result.message)
