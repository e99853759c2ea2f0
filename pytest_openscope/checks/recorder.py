"""Keeps what rig checks found: the ready-made ones and the lab's own, marked ``@pytest.mark.rig_check(expires="7d")``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ..system import parse_duration_s
from .readiness import keep_results, read_results
from .result import FAIL, PASS, SKIP, WARN, CheckResult
from .suite import NAME, RESULT, RigChecks

#: Name under which the recorder is registered; the ready-made checks find it by it.
PLUGIN_NAME = "openscope-checks"
_MARKER = "rig_check"
_WORST_FIRST = (FAIL, WARN, SKIP, PASS)
_REMEDY = "see the session log"
_UNFINISHED = "it was begun, and the session did not come back"
_log = logging.getLogger("pytest_openscope.checks")


class CheckRecorder:
    """A plugin object: registered for a session that validates its rig or holds marked tests.

    The results of a dry run are not kept: they say nothing about a rig.

    Args:
        rig_checks: what the ready-made checks work with.
        not_run: tells of a report that it is no result, since the session was interrupted or stopped.
        complete: the whole ready-made suite is collected, so that results that do not come again are dropped, unless tests are
            deselected or the session is stopped.
    """

    def __init__(
        self,
        rig_checks: RigChecks,
        *,
        not_run: Callable[[pytest.Item, pytest.CallInfo[None]], bool] = lambda item, call: False,
        complete: bool = False,
    ) -> None:
        self.rig_checks = rig_checks
        self._not_run = not_run
        self._complete = complete
        self._expected: set[str] = set()
        self._results: dict[str, CheckResult] = {}
        self._more: dict[str, dict[str, Any]] = {}
        self._before: dict[str, dict[str, Any] | None] = {}
        self._not_kept = ""

    @property
    def results(self) -> list[CheckResult]:
        """What was found, one result for each check; of two tests with one name the worse counts."""
        worst: dict[str, CheckResult] = {}
        for result in self._results.values():
            other = worst.get(result.check)
            if other is None or _WORST_FIRST.index(result.status) < _WORST_FIRST.index(other.status):
                worst[result.check] = result
        return list(worst.values())

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Refuse marks that cannot be understood before anything runs."""
        for item in items:
            marker = item.get_closest_marker(_MARKER)
            if marker is not None:
                self._more.setdefault(item.nodeid, {}).update(_expiry(item, marker))
                if NAME not in item.stash:
                    self._more[item.nodeid]["file"] = str(item.path)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know what has to come."""
        self._expected = {item.nodeid for item in session.items if item.get_closest_marker(_MARKER) is not None}

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """A part of the suite proves nothing about what the rig no longer has."""
        self._complete = self._complete and not items

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave word before foreign code runs: a driver that takes the whole process with it has not passed."""
        if item.get_closest_marker(_MARKER) is None:
            return
        if RESULT in item.stash:
            del item.stash[RESULT]
        name = _name(item)
        if NAME not in item.stash or name.startswith("devices["):
            rig = self.rig_checks.rig
            self._before.setdefault(name, read_results(rig.state_directory, rig.rig_id).get(name))
            self._save([{**CheckResult(FAIL, _UNFINISHED, check=name).as_json(), **self._more.get(item.nodeid, {})}], False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Take the result of a check; a later phase of the same test can only make it worse."""
        report: pytest.TestReport = yield
        if item.get_closest_marker(_MARKER) is None:
            return report
        if self._not_run(item, call):
            self._complete = False
            return report
        known = item.stash.get(RESULT, None)
        name = _name(item)
        if report.failed and (known is None or known.status != FAIL):
            text = str(call.excinfo.value) if call.excinfo else report.longreprtext
            known = CheckResult(FAIL, text.strip().splitlines()[0] if text.strip() else "failed", _REMEDY, check=name)
        elif known is None and report.skipped:
            known = CheckResult(SKIP, _reason(report), check=name)
        elif known is None and report.when == "call":
            known = CheckResult(PASS, "passed", check=name)
        if known is not None:
            item.stash[RESULT] = known
            self._results[item.nodeid] = known
            self._more.setdefault(known.check, {}).update(self._more.get(item.nodeid, {}))
        return report

    def pytest_sessionfinish(self) -> None:
        """Keep the results, whatever ended the session, and give back what was known of checks that came to no result."""
        results = self.results
        names = {result.check for result in results}
        entries = [{**result.as_json(), **self._more.get(result.check, {})} for result in results]
        entries += [entry for name, entry in self._before.items() if name not in names and entry is not None]
        if entries:
            self._save(entries, self._complete and self._expected <= set(self._results))

    def _save(self, entries: list[dict[str, Any]], complete: bool) -> None:
        rig, rig_file = self.rig_checks.rig, self.rig_checks.rig_file
        if self.rig_checks.dry_run:
            return
        try:
            keep_results(rig.state_directory, entries, complete, rig_id=rig.rig_id, rig_file=str(rig_file))
        except OSError as error:
            self._not_kept = f"the results of the validation could not be kept: {error}"
            _log.error("%s", self._not_kept)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show every check with its value, limit and remedy."""
        results = self.results
        if not results:
            return
        terminalreporter.section("rig validation")
        styles = {PASS: {"green": True}, WARN: {"yellow": True}, FAIL: {"red": True}, SKIP: {}}
        for result in results:
            terminalreporter.write_line(str(result), **styles.get(result.status, {}))
        counts = {status: sum(result.status == status for result in results) for status in styles}
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        terminalreporter.write_line(f"{len(results)} check{'s' if len(results) > 1 else ''}: {told}")
        if self._not_kept:
            terminalreporter.write_line(self._not_kept, red=True)


def _name(item: pytest.Item) -> str:
    return item.stash.get(NAME, item.name)


def _reason(report: pytest.TestReport) -> str:
    text = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "") or "skipped"
    return text.removeprefix("Skipped: ")


def _expiry(item: pytest.Item, marker: pytest.Mark) -> dict[str, float]:
    where = f"{item.nodeid}: @pytest.mark.{_MARKER}"
    unknown = [key for key in marker.kwargs if key != "expires"]
    if marker.args or unknown:
        raise pytest.UsageError(f"{where}: takes nothing but expires -> write @pytest.mark.{_MARKER}(expires='7d')")
    expires = marker.kwargs.get("expires")
    if expires is None:
        return {}
    try:
        seconds = parse_duration_s(expires)
    except ValueError as error:
        raise pytest.UsageError(f"{where}(expires={expires!r}): {error}") from None
    if not seconds:
        raise pytest.UsageError(f"{where}(expires={expires!r}): a result that never counts -> give a longer time")
    return {"expires_s": seconds}
