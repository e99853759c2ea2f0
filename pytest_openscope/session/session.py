"""The session as hooks and fixtures know it: the state (:mod:`.state`) with what opens it, interrupts it and ends it.

What a Ctrl-C does and writes at once is here (``_on_interrupt``); the failure is recorded by :mod:`.steps`, between steps by
:mod:`.pytest_session`; the states are written by :mod:`.ending`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from functools import partial

import pytest

from ..system import Desktop, awake_s, switch_off_selection
from ..views import Stopping
from .ending import discard, finish
from .interrupts import Interrupts, Watchdog
from .opening import open_session
from .operator import say_at_once
from .rescue import leave, rejoin
from .state import SessionState

_log = logging.getLogger("pytest_openscope.session")
_LOGGER = "pytest_openscope.session"


class ExperimentSession(SessionState):
    """One session from its start to its end: it opens, answers interrupts and the sidecar, and ends."""

    # -- start -------------------------------------------------------------------------------------------------------

    def start(self, notices: Sequence[str], not_checked: Sequence[str] = ()) -> None:
        """Take the rig, create the folder, and open log, journal and sidecar; signals are held then (``interrupts.release``).

        Raises:
            pytest.UsageError: the rig is held, not ready, or the session folder cannot be created.
        """
        self.notices += list(notices)
        self.configuration_notices = tuple(notices)
        self.interrupts = Interrupts(self._on_interrupt, lambda: self.watchdog.overdue())
        self.watchdog = Watchdog(self.interrupts.time_out, self._on_timeout, self._announce_deadline, self.settings.grace_s)
        self.config.add_cleanup(self.interrupts.restore)
        self.interrupts.install()
        if self.options.resume_session is not None:
            self.interrupts.hold()
            rejoin(self, self.options.resume_session)
        else:
            open_session(self)
        self.guard("keeping the computer awake", self._mind_the_desktop)
        if not_checked:
            self.keep("not_checked", *not_checked)
        for text in not_checked:
            self.log.write("WARNING", _LOGGER, f"not checked here: {text}")
        self.operator._pause, self.operator._keep_picture = self.watchdog.paused, self.keep_picture
        self.operator.on_question = self.note_question

    def _mind_the_desktop(self) -> None:
        """See to what Windows does to a computer that nobody touches, or that somebody touches without a thought."""
        self.config.add_cleanup(switch_off_selection())
        reason = "" if self.dry_run else f"the experiment {self.record.session_uuid} is running; Ctrl-C in its window ends it"
        self.desktop = Desktop(lambda text: self.tell([text]), self.interrupts.console.handle, reason)
        self.config.add_cleanup(self.desktop.stop)
        if problem := self.desktop.start():
            self.log.write("WARNING", _LOGGER, problem)

    # -- what happens on the way -------------------------------------------------------------------------------------

    def _on_interrupt(self, count: int, cause: str) -> None:
        everything = count > 1
        self.gate.stop(f"interrupted by {cause}", everything=everything)
        text = f"{cause}: {self._what_an_interrupt_does(everything)}"
        self.log.write("WARNING", _LOGGER, text)
        self.stopping = Stopping(text, time.monotonic())
        say_at_once(self.config, text)
        self.stop_acquisitions(f"interrupted by {cause}")

    def _what_an_interrupt_does(self, everything: bool) -> str:
        """Say what happens now, and how long it may take."""
        if self.ending:
            return "the session is ending already: devices are made safe, the states are written"
        stopping = ""
        if self.acquisition is not None and (running := self.acquisition.active):
            longest_s = self.acquisition.longest_stop_s
            stopping = f"stopping {', '.join(run.name for run in running)} (at most {longest_s:g} s); "
        if everything:
            return f"{stopping}no more steps; devices are made safe"
        if not self.gate.acquisition_begun:
            return f"{stopping}stopping; no acquisition has begun, so the session ends; devices are made safe"
        return f"{stopping}stopping; post-acquisition runs, again to skip it"

    def stop_acquisitions(self, reason: str) -> None:
        """Ask what is running to stop, without waiting; the step that runs it waits."""
        if self.acquisition is not None:
            self.guard("stopping the acquisition", partial(self.acquisition.stop_all, reason, wait=False))

    def _on_timeout(self, text: str) -> None:
        """In the watchdog's thread: leave the stacks of all threads in the log before the step is interrupted."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = [text]
        for ident, frame in sys._current_frames().items():
            parts.append(f"--- thread {names.get(ident, ident)}\n" + "".join(traceback.format_stack(frame)).rstrip())
        self.log.write("ERROR", "pytest_openscope.timeout", "\n".join(parts))
        if text.startswith("session timeout"):
            self.gate.stop(text)

    def _announce_deadline(self, kill_at: float | None, what: str) -> None:
        self.journal.write("deadline", kill_at=kill_at, what=what)
        if sys.platform != "win32":
            # The sidecar asks for the stacks by SIGABRT. Written by a timer's thread while others run, as after Ctrl-Z, they
            # can crash the process.
            return
        if kill_at is None:
            faulthandler.cancel_dump_traceback_later()
        elif self.faults is not None:
            delay_s = max(0.1, kill_at - awake_s() - self.settings.grace_s / 2)
            faulthandler.dump_traceback_later(delay_s, file=self.faults)

    def enable_faulthandler(self) -> None:
        """Let the stacks of a segfault go to a file that the sidecar reads; pytest's own goes to stderr."""
        if self.faults is not None:
            faulthandler.enable(self.faults)

    # -- end ---------------------------------------------------------------------------------------------------------

    def finish(self, exit_code: int | None) -> None:
        """End the session once: devices, notes, states, log, mirror; the rig is free on return."""
        if self.finished:
            return
        self.finished = self.ending = True
        self.discarded = exit_code == pytest.ExitCode.USAGE_ERROR and not self.collected
        try:
            if self.resuming:
                leave(self, exit_code)
            elif self.discarded:
                discard(self)
            else:
                finish(self, exit_code)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.watchdog.stop()
            self.interrupts.over()
            if self.desktop is not None:
                self.desktop.stop()
            self.free_rig()

    def end_a_fork(self) -> None:
        """End this process if it is a copy that a step made with ``os.fork`` and let leave its step.

        It would run the other steps, switch off the parent's hardware and write the parent's states once more.
        """
        if os.getpid() != self.pid:
            text = f"a fork of the experiment process (pid {os.getpid()}) left its step and was ended: end it with os._exit"
            self.log.write("WARNING", _LOGGER, text)
            os._exit(1)
