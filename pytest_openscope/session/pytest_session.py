"""Hooks at the beginning and the end of pytest's own session, and pytest-timeout's timers."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from ..records import Failure, Outcome, failure_from_exception
from ..system import now_iso
from ..views import annotate, write_summary
from .collecting import step_name
from .interrupts import SESSION
from .tee import LooseEnds

if TYPE_CHECKING:
    from .session import ExperimentSession

_log = logging.getLogger("pytest_openscope.steps")


class Timeouts:
    """pytest-timeout decides when a step has had its time; this decides how it ends."""

    def __init__(self, session: ExperimentSession) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool:
        message = f"timeout: {step_name(item)} took longer than {settings.timeout:g} s"
        self._session.step_limit_s = None if settings.func_only else float(settings.timeout)
        self._session.watchdog.arm(item.nodeid, float(settings.timeout), message)
        return True

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool:
        expired = self._session.watchdog.expired(item.nodeid)
        self._session.watchdog.cancel(item.nodeid)
        if expired:
            self._take_overrun(item, expired)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Time a teardown anew whose step has failed: pytest-timeout leaves it untimed, and one that hangs would never end."""
        limit_s, watchdog = self._session.step_limit_s, self._session.watchdog
        if limit_s is not None and not watchdog.is_armed(item.nodeid):
            limit_s = max(limit_s, self._session.settings.grace_s)
            message = f"timeout: the teardown of {step_name(item)} took longer than {limit_s:g} s"
            watchdog.arm(item.nodeid, limit_s, message, for_teardown=True)

    def _take_overrun(self, item: pytest.Item, text: str) -> None:
        """Keep a timeout that passed where no step can be interrupted: in the teardown, which has come to its end."""
        session = self._session
        step = next((one for one in reversed(session.record.steps) if one.nodeid == item.nodeid), None)
        if step is None or step.outcome is Outcome.TIMEOUT:
            return
        step.outcome = Outcome.TIMEOUT if step.outcome is None else step.outcome.worse(Outcome.TIMEOUT)
        session.fail(Failure("timeout", Outcome.TIMEOUT, text, phase=step.phase, step=step.name, at=now_iso()))


class SessionEnds:
    """Beginning and end of pytest's own session."""

    def __init__(self, session: ExperimentSession) -> None:
        self._session = session
        self._loose_ends = LooseEnds(self._on_exit)
        self._summarised = False

    def pytest_report_header(self) -> list[str]:
        """Say which session is continued, and list what a dry run simulates before it begins."""
        record = self._session.record
        continued = [f"continues {record.continues['session_uuid']} as {record.session_uuid}"] if record.continues else []
        return [*continued, *(f"dry run: {line}" for line in record.simulated)]

    def _on_exit(self, status: int, stack: str) -> None:
        self._session.log.write("CRITICAL", "pytest_openscope.uncaught", f"os._exit({status}) was called\n{stack.rstrip()}")
        self._session.journal.write("exiting", code=status, text=stack)
        if self._session.view is not None:
            self._session.view.end()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._loose_ends.install()
        if self._session.view is not None:
            self._session.view.begin(self._session)
        config = session.config
        limit = config.getoption("session_timeout", None)
        if limit is None:
            with contextlib.suppress(ValueError):  # of pytest without pytest-timeout, which does not know the key
                limit = config.getini("session_timeout") or None
        limit = limit or self._session.settings.session_timeout
        if limit:
            seconds = float(limit)
            self._session.watchdog.arm(SESSION, seconds, f"session timeout: longer than {seconds:g} s")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        mine = self._session
        told = any(failure.kind == "interrupt" for failure in mine.record.failures)
        if told or (isinstance(excinfo.value, pytest.Session.Interrupted) and not mine.interrupts.count):
            return
        cause = mine.interrupts.cause
        text = f"interrupted by {cause}" if cause else f"{excinfo.typename}: {excinfo.value}".rstrip(": ")
        mine.fail(Failure("interrupt", Outcome.INTERRUPTED, text))

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        _log.critical("internal error", exc_info=excinfo._excinfo)
        self._session.fail(failure_from_exception(excinfo.value, kind="internal", outcome=Outcome.ERROR))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> Any:
        mine = self._session
        mine.interrupts.hold()
        if mine.step_limit_s is not None:
            # Fixtures that an interrupted loop has left open are torn down here.
            limit_s = max(mine.step_limit_s, mine.settings.grace_s)
            mine.watchdog.arm("teardown", limit_s, f"timeout: the teardown of fixtures took longer than {limit_s:g} s", True)
        try:
            with mine.interrupts.teardown():
                return (yield)
        except Exception as error:
            mine.fail(failure_from_exception(error, kind="internal", outcome=Outcome.ERROR))
            raise
        finally:
            mine.watchdog.cancel("teardown")
            self._explain_exit_code(session)
            outcome = mine.outcome
            if int(session.exitstatus) in (0, 5) and mine.record.steps and not mine.resuming and outcome is not Outcome.PASSED:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self._loose_ends.restore()
            try:
                mine.finish(int(session.exitstatus))
            finally:
                if mine.view is not None:
                    mine.view.end()
            if int(session.exitstatus) == 0 and mine.record.exit_code:
                # The disk took not even the last lines.
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _explain_exit_code(self, session: pytest.Session) -> None:
        """Keep why pytest is not content with a session whose steps all passed: another plugin said so."""
        mine, code = self._session, int(session.exitstatus)
        if code not in (0, 5) and mine.record.steps and mine.outcome is Outcome.PASSED:
            why = session.shouldfail or session.shouldstop
            text = f"pytest ended with exit code {code}{f': {why}' if isinstance(why, str) else ''}"
            mine.fail(Failure("internal", Outcome.ERROR, text, at=now_iso()))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._summarise(terminalreporter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        terminal = config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None and self._session.finished:
            # pytest leaves out the summary for exit codes that it does not know, such as those of pytest.exit.
            self._summarise(terminal)
        if self._session.finished:
            threading.Thread(target=self._leave_in_time, name="openscope-exit", daemon=True).start()

    def _leave_in_time(self) -> None:
        """End a process whose session is over but which does not come to its end: the rig's next session would wait for it."""
        mine = self._session
        threading.main_thread().join()  # returns when Python begins to leave
        time.sleep(mine.settings.grace_s)
        me = threading.current_thread()
        left = [one.name for one in threading.enumerate() if one.is_alive() and not one.daemon and one is not me]
        why = f"threads that do not end: {', '.join(left)}" if left else "an exit handler (atexit) does not return"
        print(
            f"pytest-openscope: the process was ended {mine.settings.grace_s:g} s after its session: {why}", file=sys.__stderr__
        )
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.__stderr__.flush()  # type: ignore[union-attr]
        os._exit(mine.record.exit_code or 0)

    def _summarise(self, terminal: Any) -> None:
        if self._summarised or self._session.discarded:
            return
        self._summarised = True
        try:
            write_summary(self._session, terminal)
            if os.environ.get("GITHUB_ACTIONS") == "true":
                mine = self._session
                for line in annotate(mine.record.failures, mine.config.rootpath, mine.secrets):
                    terminal.write_line(line)
        except Exception:
            # The session is over and its states are written; what only tells of it must not end pytest with a traceback.
            terminal.write_line(f"the summary could not be written:\n{traceback.format_exc()}", red=True)
            terminal.write_line(f"session folder: {self._session.folder}")
