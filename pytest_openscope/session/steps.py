"""Steps: pytest's items in phase order, what they may do, what became of them."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ..records import Failure, OnFailure, Outcome, Phase, StepRecord, failure_from_exception
from ..system import now_iso
from .attempts import Retries, attempts_of, is_last_attempt
from .collecting import NO_PYTEST_RETRY, misspelt_phases, place_of, step_name
from .fixture_steps import FixtureSteps
from .interrupts import SESSION, StepExited, StepInterrupted, StepTimedOut
from .pytest_session import SessionEnds, Timeouts
from .rescue import command_of, only_unreached, steps_after_crash
from .rig import register_recorder
from .step_tools import devices_of
from .tee import OutputTee
from .tracebacks import hide_own_frames, shorten

if TYPE_CHECKING:
    from .session import ExperimentSession

_LOGGER = "pytest_openscope.steps"
_log = logging.getLogger(_LOGGER)
_STEP = pytest.StashKey[StepRecord]()
_SESSION = pytest.StashKey["ExperimentSession"]()


def register_hooks(session: ExperimentSession, config: pytest.Config) -> None:
    """Register the objects whose methods are pytest's hooks while an experiment runs."""
    config.stash[_SESSION] = session
    tee = OutputTee(lambda name, line: session.log.write("INFO", name, line))
    manager = config.pluginmanager
    manager.register(tee, "openscope-tee")
    manager.register(StepWindows(session), "openscope-windows")
    fixtures = FixtureSteps(session)
    manager.register(fixtures, "openscope-fixtures")
    manager.register(StepKeeper(session, tee, fixtures), "openscope-steps")
    manager.register(SessionEnds(session), "openscope-session")
    if session.validating:
        session.recorder = register_recorder(session)
    if manager.hasplugin("timeout") or hasattr(manager.hook, "pytest_timeout_set_timer"):
        manager.register(Timeouts(session), "openscope-timeouts")


def session_of(config: pytest.Config) -> ExperimentSession:
    """Return the session of an active run.

    Raises:
        pytest.UsageError: there is none (an informational run).
    """
    session = config.stash.get(_SESSION, None)
    if session is None:
        raise pytest.UsageError("no experiment runs: this needs --rig-config")
    return session


class StepWindows:
    """The outermost wrappers of setup and call: here a step can be interrupted, and only here."""

    def __init__(self, session: ExperimentSession) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Any:
        try:
            with self._session.interrupts.window():
                return (yield)
        finally:
            self._session.end_a_fork()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        session = self._session
        begins = place_of(item)[0] is Phase.ACQUISITION
        try:
            with session.interrupts.window():
                if begins and session.nodes is not None:
                    session.nodes.wait_for_start()
                if begins and not session.gate.acquisition_begun:
                    session.gate.acquisition_begun = True
                    session.journal.write("acquisition_begun")
                try:
                    return (yield)
                except (SystemExit, GeneratorExit) as error:
                    raise _StepLeft(f"the step raised {type(error).__name__}({error})") from error
        finally:
            session.end_a_fork()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Any:
        with self._session.interrupts.teardown():
            return (yield)


class _StepLeft(Exception):  # noqa: N818 - a step that tried to leave is no error of this package
    """A step called ``sys.exit``: a failure of the step, not the end of the session."""


class StepKeeper:
    """Orders, gates and records the steps."""

    def __init__(self, session: ExperimentSession, tee: OutputTee, fixtures: FixtureSteps) -> None:
        self._session = session
        self._fixtures = fixtures
        self._tee = tee
        self._maxfail = 0
        self._failures = 0
        self._post_begun = False
        self._started = 0.0
        self._eager_opened = session.validating or session.resuming
        self._begun = False
        #: What the step's failures do to the steps after it, once its last attempt has ended.
        self._consequences: list[Callable[[], None]] = []
        session.config.add_cleanup(gc.unfreeze)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._maxfail = session.config.getoption("maxfail", 0) or 0
        session.config.option.maxfail = 0
        self._session.log.ensure_attached()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Any:
        mine = self._session
        try:
            # Before anything is deselected: ``-m pre_acquisition`` would leave a misspelt one out in silence.
            if misspelt := misspelt_phases(items, config):
                raise pytest.UsageError("\n".join(map(str, misspelt)))
            result = yield
            most = 1
            for item in items:
                most = max(most, attempts_of(item).most)
                if item.get_closest_marker("flaky") and config.pluginmanager.hasplugin("pytest-retry"):
                    raise pytest.UsageError(NO_PYTEST_RETRY)
            if most > 1:
                config.pluginmanager.register(Retries(mine), "openscope-retries")
            items.sort(key=lambda item: place_of(item)[0].rank)
            if mine.resuming:
                only_unreached(mine, items)
        except pytest.UsageError as error:
            mine.fail(Failure("collection", Outcome.ERROR, str(error), exception_type="UsageError", at=now_iso()))
            raise
        if mine.recorder is None and any(item.get_closest_marker("rig_check") for item in items):
            mine.recorder = register_recorder(mine)
            mine.recorder.pytest_collection_modifyitems(items)
        return result

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._session.keep("deselected", *(item.nodeid for item in items))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        session = self._session
        session.log.ensure_attached()
        for taken in session.interrupts.retake():
            self._say("WARNING", f"{taken} had been given another handler; it is the session's again")
        phase, policy, _ = place_of(item)
        name = step_name(item)
        if phase is Phase.POST_ACQUISITION and not self._post_begun:
            self._post_begun = True
            session.begin_post_acquisition()
        session.log.set_place(str(phase), name)
        self._fixtures.item_begins(phase, name)
        step = session.add_step(name, item.nodeid, phase, policy, getattr(item, "openscope_kind", "test"))
        item.stash[_STEP] = step
        self._started = time.perf_counter()
        self._begun = False
        # Set by pytest-timeout's hook, which is not called for a step without a timeout.
        session.step_limit_s = None
        try:
            with session.operator.replacing_input():
                return (yield)
        finally:
            self._end_step(item, step)

    def _say(self, level: str, text: str) -> None:
        """Write progress straight into the session log: nobody else's handlers want it, and it happens twice a step."""
        self._session.log.write(level, _LOGGER, text)

    def _begin_again(self, item: pytest.Item, step: StepRecord) -> None:
        """Somebody runs the step once more: its last attempt decides, and what the one before did is kept as an attempt."""
        session = self._session
        now = time.perf_counter()
        session.take_attempt_back(step, round(now - self._started, 6))
        self._started = now
        self._consequences.clear()
        limit_s = session.step_limit_s
        session.watchdog.cancel(item.nodeid)
        if limit_s is not None:
            session.watchdog.arm(item.nodeid, limit_s, f"timeout: {step.name} took longer than {limit_s:g} s")
        self._say("INFO", f"attempt {len(step.attempts) + 1}: {item.nodeid}")

    def _end_step(self, item: pytest.Item, step: StepRecord) -> None:
        session = self._session
        session.end_a_fork()
        for consequence in self._consequences:
            consequence()
        self._consequences.clear()
        step.duration_s = round(time.perf_counter() - self._started, 6)
        session.log.ensure_attached()
        if step.skipped:
            self._say("INFO", f"step skipped: {step.skipped}")
        elif step.outcome is not None:
            level = "INFO" if step.outcome is Outcome.PASSED else "ERROR"
            self._say(level, f"step {step.outcome} in {step.duration_s:.3f} s")
        session.end_step(step)
        expired = session.watchdog.expired(SESSION)
        if expired:
            session.watchdog.cancel(SESSION)
            session.gate.stop(expired)
            if not any(failure.outcome is Outcome.TIMEOUT for failure in session.record.failures):
                # It passed where no step can be interrupted.
                session.fail(Failure("timeout", Outcome.TIMEOUT, expired, phase=step.phase, step=step.name, at=now_iso()))
        session.interrupts.clear_timeout()
        session.log.set_place(None, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        step = item.stash[_STEP]
        reason = self._session.gate.reason_to_skip(step.phase)
        if reason:
            raise pytest.skip.Exception(reason, _use_item_location=True)
        if self._begun:
            self._begin_again(item, step)
        else:
            self._say("INFO", f"step started: {item.nodeid}")
        self._begun = True
        self._session.begin_attempt(len(step.attempts) + 1)
        if not self._eager_opened:
            self._eager_opened = True
            if any(device.get("open") == "eager" for device in self._session.rig.devices.values()):
                devices_of(self._session).open_all()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        """A step that the session's timeout has ended did come back: no reason to end its teardown with the process."""
        self._session.watchdog.extend(SESSION)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        raised = call.excinfo.value if call.excinfo else None
        hide_own_frames(raised)
        report: pytest.TestReport = yield
        shorten(report, raised)
        try:
            self._take_report(item, call, report)
        except Exception as error:
            _log.exception("the step's result could not be recorded")
            self._session.keep("helper_failures", f"recording {item.nodeid}: {error}")
        return report

    def _take_report(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        step = item.stash[_STEP]
        if report.skipped:
            step.skipped = _skip_reason(report)
            if hasattr(report, "wasxfail"):
                step.skipped, step.outcome = "", Outcome.PASSED
        elif report.failed:
            self._take_failure(item, step, call, report)
        elif report.when == "call" and step.outcome is None:
            step.outcome = Outcome.PASSED
        self._tee.log_remainder(report)

    def _take_failure(
        self, item: pytest.Item, step: StepRecord, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        session = self._session
        error = call.excinfo.value if call.excinfo else None
        phase, policy, explicit = place_of(item)
        outcome, kind = _classify(error, report.when)
        fixture = self._fixtures.failed_fixture(error, report.when)
        name = step.name
        if fixture is not None:
            name, phase = fixture.name, fixture.phase
            fixture.outcome, policy, explicit = outcome, OnFailure.ABORT, False
            session.end_step(fixture)
        if error is None:
            failure = Failure(kind, outcome, report.longreprtext or str(report.longrepr))
        else:
            failure = failure_from_exception(
                error,
                kind=kind,
                outcome=outcome,
                show_locals=session.settings.show_locals,
                acquisition=session.facts_of(error),
            )
        failure.phase, failure.step, failure.nodeid, failure.when = phase, name, item.nodeid, report.when
        step.outcome = outcome if step.outcome is None else step.outcome.worse(outcome)
        _log.error("%s %s: %s\n%s", name, outcome, failure.message, failure.traceback or report.longreprtext)
        session.fail(failure)
        if isinstance(error, StepExited):
            cause = error.__cause__
            session.exit_request = cause
            session.gate.stop(str(error))
        elif report.when != "teardown" or fixture is not None:
            if report.when == "setup":
                policy = OnFailure.ABORT
            if phase is Phase.ACQUISITION and session.nodes is not None:
                tell = partial(session.nodes.tell_failure, f"{phase} step {name!r} failed: {failure.message}")
                self._consequences.append(tell)
                if is_last_attempt(item):
                    tell()  # the step's teardown may take its time
            close = partial(session.gate.step_failed, phase, name, policy, explicit=explicit)
            self._consequences.append(close)
        self._consequences.append(self._count_failure)

    def _count_failure(self) -> None:
        self._failures += 1
        if self._maxfail and self._failures >= self._maxfail:
            self._session.gate.stop(f"stopping after {self._failures} failures (--maxfail)")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._show_notices()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        # Before the first step: an operator must know what is odd about this rig before an animal is on it.
        self._show_notices()
        # What is loaded now lives to the end: no step waits while the collector looks through all of it again.
        gc.freeze()

    def _show_notices(self) -> None:
        fresh = self._session.fresh_notices()
        if not fresh:
            return
        terminal: Any = self._session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            for text in fresh:
                terminal.write_line(f"openscope: {text}", yellow=True)

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
        where = f"{warning_message.filename}:{warning_message.lineno}"
        text = f"{warning_message.category.__name__}: {warning_message.message} ({where})"
        logging.getLogger("py.warnings").warning("%s", text)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            text = report.longreprtext
            _log.error("collection error in %s\n%s", report.nodeid, text)
            message = _collection_error(report.nodeid, text)
            self._session.fail(
                Failure("collection", Outcome.ERROR, message, traceback=text, step=report.nodeid, nodeid=report.nodeid)
            )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Any:
        mine = self._session
        mine.interrupts.hold()
        mine.collected = True
        mine.doing = ""
        after_crash = steps_after_crash(session.items, mine.configuration)
        mine.journal.write(
            "collected", after_crash=after_crash, rescue=command_of(mine.config, mine.configuration, after_crash)
        )
        mine.enable_faulthandler()
        try:
            result = yield
        except (pytest.Session.Failed, pytest.Session.Interrupted, KeyboardInterrupt, pytest.exit.Exception):
            self._rescue(session)
            raise
        if mine.exit_request is not None:
            raise mine.exit_request
        if mine.interrupts.count:
            raise session.Interrupted(f"interrupted by {mine.interrupts.cause}")
        if self._maxfail and self._failures >= self._maxfail:
            raise session.Failed(f"stopping after {self._failures} failures")
        return result

    def _rescue(self, session: pytest.Session) -> None:
        """Somebody else ended pytest's loop (``--stepwise``, another plugin): post-acquisition runs all the same."""
        mine = self._session
        done = {step.nodeid for step in mine.record.steps}
        rest = [item for item in session.items if item.nodeid not in done]
        post = [item for item in rest if place_of(item)[0] is Phase.POST_ACQUISITION]
        if not mine.gate.acquisition_begun or mine.interrupts.count > 1:
            return
        for item, following in zip(post, [*post[1:], None], strict=False):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def _collection_error(nodeid: str, text: str) -> str:
    """Return what is wrong in one line: the file, the exception, and the line of the file where pytest's text names it."""
    import re

    last = text.strip().splitlines()[-1].strip("E ") if text.strip() else "collection error"
    importing = "in <module>" in text or "importing test module" in text or last.startswith("SyntaxError")
    name = re.escape(nodeid.partition("::")[0].rpartition("/")[2])
    numbers = re.findall(rf'^(?:E +File ".*{name}", line |(?:.*[/\\])?{name}:)([0-9]+)', text, re.MULTILINE) if name else []
    where = f" (line {numbers[-1]})" if numbers else ""
    return f"{nodeid or 'a file'} cannot be {'imported' if importing else 'collected'}: {last}{where}"


def _skip_reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    return str(longrepr[2]).removeprefix("Skipped: ") if isinstance(longrepr, tuple) else str(longrepr)


def _classify(error: BaseException | None, when: str | None) -> tuple[Outcome, str]:
    members = getattr(error, "exceptions", ())
    if members and when == "teardown":
        # Several finalizers failed: the worst decides.
        return max((_classify(member, when) for member in members), key=lambda found: found[0].severity)
    kind = str(getattr(error, "openscope_kind", "exception"))
    if isinstance(error, StepTimedOut) or kind == "timeout":
        return Outcome.TIMEOUT, "timeout"
    if isinstance(error, (StepInterrupted, StepExited)):
        return Outcome.INTERRUPTED, "interrupt"
    return Outcome.FAILED if when == "call" else Outcome.ERROR, kind
