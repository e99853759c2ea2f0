"""Keeps what rig checks found: the ready-made ones and the lab's own, marked ``@pytest.mark.rig_check(expires="7d")``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ..durations import parse_duration_s
from .result import FAIL, PASS, SKIP, WARN, CheckResult
from .suite import RESULT, RigChecks

#: Name under which the recorder is registered; the ready-made checks find it by it.
PLUGIN_NAME = "openscope-checks"
Keep = Callable[[list[dict[str, Any]], bool], None]
_MARKER = "rig_check"
_log = logging.getLogger("pytest_openscope.checks")


class CheckRecorder:
    """A plugin object: registered for a session that validates its rig or holds marked tests.

    Args:
        configuration: of the session.
        session_uuid: of the session.
        keep: called at the end with the results and with whether they are complete (:func:`pytest_openscope.readiness.keeper`);
            None keeps nothing, since a dry run says nothing about a rig.
        rig: with its placeholders replaced; the configuration's own where this is left out.
        complete: the whole ready-made suite runs, so results that do not come again are dropped unless tests are deselected.
    """

    def __init__(
        self, configuration: Any, session_uuid: str, keep: Keep | None, *, rig: Any = None, complete: bool = False
    ) -> None:
        self.rig_checks = RigChecks(configuration, session_uuid, rig)
        self._keep = keep
        self._complete = complete
        self.results: dict[str, CheckResult] = {}
        self._expires_s: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Refuse an ``expires`` that is no duration before anything runs."""
        for item in items:
            marker = item.get_closest_marker(_MARKER)
            if marker is None:
                continue
            try:
                expires = marker.kwargs.get("expires")
                if expires is not None:
                    self._expires_s[item.nodeid] = parse_duration_s(expires)
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.rig_check(expires=…): {error}") from None

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """A part of the suite proves nothing about what the rig no longer has."""
        self._complete = self._complete and not items

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Take the result of a check; a later phase of the same test can only make it worse."""
        report: pytest.TestReport = yield
        if item.get_closest_marker(_MARKER) is None:
            return report
        known = item.stash.get(RESULT, None)
        name = known.check if known is not None else item.name
        if report.failed and (known is None or known.status != FAIL):
            text = str(call.excinfo.value) if call.excinfo else report.longreprtext
            known = CheckResult(name, FAIL, text.strip().splitlines()[0] if text.strip() else "failed")
        elif known is None and report.skipped:
            known = CheckResult(name, SKIP, str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "skipped")
        elif known is None and report.when == "call":
            known = CheckResult(name, PASS, "passed")
        if known is not None:
            item.stash[RESULT] = known
            self.results[known.check] = known
            if item.nodeid in self._expires_s:
                self._expires_s[known.check] = self._expires_s[item.nodeid]
        return report

    def pytest_sessionfinish(self) -> None:
        """Keep the results, whatever ended the session."""
        if self._keep is None or not self.results:
            return
        entries = []
        for result in self.results.values():
            entry = result.as_json()
            if result.check in self._expires_s:
                entry["expires_s"] = self._expires_s[result.check]
            entries.append(entry)
        try:
            self._keep(entries, self._complete)
        except OSError as error:
            _log.error("the results of the validation could not be kept: %s", error)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show every check with its value, limit and remedy."""
        if not self.results:
            return
        terminalreporter.section("rig validation")
        styles = {PASS: {"green": True}, WARN: {"yellow": True}, FAIL: {"red": True}, SKIP: {}}
        for result in self.results.values():
            terminalreporter.write_line(str(result), **styles.get(result.status, {}))
        counts = ", ".join(f"{self._count(status)} {status}" for status in styles if self._count(status))
        terminalreporter.write_line(f"{len(self.results)} checks: {counts}")

    def _count(self, status: str) -> int:
        return sum(result.status == status for result in self.results.values())
