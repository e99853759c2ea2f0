"""Steps that are tried again: what a marker or a pipeline entry asks for, and the loop that does it.

A step's last attempt decides. Function-scoped fixtures are made anew for each; what has a wider scope stays as it is. Another
plugin that runs steps again (pytest-rerunfailures) is served by the same records: see :meth:`.steps.StepKeeper`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import call_and_report

from .collecting import phase_marker, place_of, step_name
from .interrupts import StepExited, StepInterrupted, StepTimedOut

if TYPE_CHECKING:
    from .state import SessionState

_ATTEMPTS = pytest.StashKey["Attempts"]()
_MOST = 100


@dataclass(frozen=True)
class Attempts:
    """How often a step is tried, how long it waits in between, and after which errors."""

    most: int = 1
    delay_s: float = 0.0
    on: tuple[type[BaseException], ...] = (Exception, pytest.fail.Exception)

    def covers(self, error: BaseException | None) -> bool:
        """Tell whether a step may be tried again after this error; never after an interrupt or ``pytest.exit``."""
        if isinstance(error, (StepInterrupted, StepExited)):
            return False
        return isinstance(error, self.on) or (isinstance(error, StepTimedOut) and TimeoutError in self.on)


def attempts_of(item: pytest.Item) -> Attempts:
    """Return what the step's phase marker asks for.

    Raises:
        pytest.UsageError: ``attempts``, ``retry_delay_s`` or ``retry_on`` is no good.
    """
    if _ATTEMPTS not in item.stash:
        marker = phase_marker(item)
        item.stash[_ATTEMPTS] = Attempts() if marker is None else _read(item.nodeid, marker)
    return item.stash[_ATTEMPTS]


def is_last_attempt(item: pytest.Item) -> bool:
    """Tell whether nobody can have the step tried again, this plugin or pytest-rerunfailures, if it fails now."""
    again = item.get_closest_marker("flaky") or item.config.getoption("reruns", None)
    return attempts_of(item).most == 1 and not again


def _read(nodeid: str, marker: pytest.Mark) -> Attempts:
    given = marker.kwargs

    def wrong(key: str, remedy: str) -> pytest.UsageError:
        return pytest.UsageError(f"{nodeid}: @pytest.mark.{marker.name}({key}={given[key]!r}) -> {remedy}")

    most, delay_s, on = given.get("attempts", 1), given.get("retry_delay_s", 0.0), given.get("retry_on") or ()
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST:
        raise wrong("attempts", f"give a whole number from 1 to {_MOST}")
    if isinstance(delay_s, bool) or not isinstance(delay_s, (int, float)) or not 0 <= delay_s < float("inf"):
        raise wrong("retry_delay_s", "give a number of seconds")
    kinds = on if isinstance(on, tuple) else (on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise wrong("retry_on", "give an exception type, or a tuple of them")
    return Attempts(most, float(delay_s), kinds) if kinds else Attempts(most, float(delay_s))


class Retries:
    """Runs the steps that have more than one attempt."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._error: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run the step until an attempt passes or none is left; other steps are pytest's."""
        attempts = attempts_of(item)
        if attempts.most == 1:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for number in range(1, attempts.most + 1):
            if not self._attempt(item, nextitem, attempts, number):
                break
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _attempt(self, item: Any, nextitem: pytest.Item | None, attempts: Attempts, number: int) -> bool:
        if hasattr(item, "_request") and not item._request:
            item._initrequest()
        self._error = None
        reports = [call_and_report(item, "setup", log=False)]
        if reports[0].passed:
            reports.append(call_and_report(item, "call", log=False))
        again = number < attempts.most and reports[-1].failed and attempts.covers(self._error)
        again = again and not self._session.gate.reason_to_skip(place_of(item)[0])
        # What has a wider scope than the step stays for the next attempt.
        reports.append(call_and_report(item, "teardown", log=False, nextitem=item.parent if again else nextitem))
        item._request, item.funcargs = False, None
        again = again and self._wait(item, attempts, number)
        for report in reports:
            if again and report.failed:
                report.outcome = "rerun"  # type: ignore[assignment]
            if not again or report.outcome == "rerun":  # type: ignore[comparison-overlap]
                item.ihook.pytest_runtest_logreport(report=report)
        if again:
            _forget_failed_fixtures(item)
        return again

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Keep the error, which the report has as text only."""
        if call.when != "teardown" and call.excinfo is not None:
            self._error = call.excinfo.value

    def _wait(self, item: pytest.Item, attempts: Attempts, number: int) -> bool:
        """Wait for the next attempt; False when it is not to come any more."""
        session, phase = self._session, place_of(item)[0]
        text = f"attempt {number} of {attempts.most} failed"
        after = f" in {attempts.delay_s:g} s" if attempts.delay_s else ""
        session.log.write("WARNING", "pytest_openscope.steps", f"{text}; {step_name(item)} is tried again{after}")
        try:
            with session.interrupts.window():
                time.sleep(attempts.delay_s)
        except (StepInterrupted, StepTimedOut):
            return False
        return not session.gate.reason_to_skip(phase)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Show an attempt that another one follows as ``R``."""
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]
            return "rerun", "R", ("RERUN", {"yellow": True})
        return None


def _forget_failed_fixtures(item: Any) -> None:
    """Let fixtures whose setup failed be made anew, whatever their scope."""
    for definitions in getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {}).values():
        for definition in definitions:
            if definition.cached_result is not None and definition.cached_result[2] is not None:
                definition.cached_result = None
