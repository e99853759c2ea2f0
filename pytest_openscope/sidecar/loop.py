"""The sidecar: one process per session that sees to what the experiment process must not wait for or cannot do any more.

It follows the session's journal, watches the experiment process, ends it when a step's deadline has passed, and finishes the
session when it died. Mirror, resource samples and reports are helpers that it starts after it is ready; each is guarded alone,
so that a fault in one costs neither the others nor the watch. Nothing heavy is imported before ``ready``.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..records import METADATA, Journal
from ..system import FileLock, ProcessWatch, create_time, is_stopped, memory_mb
from .link import Link
from .view import WITNESS_JOURNAL, SessionView

TICK_S = 0.2
#: How long the ``session`` event and the greeting may take.
START_S = 10.0
#: A hung process gets so long to write its stacks before it is killed.
STACKS_S = 1.0
#: A step is ended by its own process; only after so long without effect by this one (``grace_s``).
_GRACE_S = 10.0
#: Between two looks passes this much at most, unless the computer slept or this process was stopped.
_GAP_S = 2.0
_KILL_WAIT_S = 5.0
_FIRST_FREE_FD = 3


class Helpers(Protocol):
    """What the sidecar runs beside its watch; whatever one of them raises is guarded here."""

    def start(self) -> None:
        """Start all of them, each guarded alone."""

    def on_events(self, events: Sequence[dict[str, Any]]) -> None:
        """Take in new events of the journal."""

    def tick(self) -> None:
        """Go on a little; called about every 0.2 s, never waits."""

    def log_late(self, level: str, text: str, logger: str) -> None:
        """Put a warning into the log of the session that has ended."""

    def stop_samples(self) -> None:
        """Complete ``resource_usage.json``."""

    def known_processes(self) -> list[tuple[int, float]]:
        """Return pid and start time of each process seen in an acquisition's tree."""

    def start_reports(self) -> None:
        """Begin to send failure reports."""

    def finish_mirror(self) -> None:
        """Bring the mirror to its end within its time."""

    def wait_for_reports(self) -> None:
        """Give the reports a bounded time."""

    def discard(self) -> None:
        """Forget a session that was taken back."""

    def close(self) -> None:
        """Complete the copies, and note what is still owed."""


class PatientStderr(io.TextIOBase):
    """The sidecar's log, which lies on the session's disk: what a full one does not take must not end the sidecar."""

    def write(self, text: str) -> int:
        """Write past any buffer, whose end would be tried again and again."""
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)


def detach() -> None:
    """Let nothing that is meant for the experiment reach this process: signals of its terminal, its open files."""
    names = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM", "SIGBREAK", "SIGPIPE")
    for name in names:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.closerange(_FIRST_FREE_FD, 1024)
    os.chdir(Path(sys.executable).anchor or os.sep)


class Sidecar:
    """One session's sidecar; :meth:`run` returns when nothing is left to do."""

    def __init__(self, folder: Path, make_helpers: Callable[[Sidecar], Helpers], finish: bool = False) -> None:
        self.folder = folder
        self.finish_only = finish
        self.view = SessionView(folder)
        self.wake = threading.Event()
        self.dead = threading.Event()
        self.link = Link(self.wake.set)
        self.journal: Journal | None = None
        self.watch: ProcessWatch | None = None
        self.helpers: Helpers | None = None
        self._make_helpers = make_helpers
        self.rig_lock: FileLock | None = None
        self.secrets: frozenset[str] = frozenset()
        self._looked = time.monotonic()
        self._patient_until = 0.0
        self._said_stopped = False
        self._taken = FileLock(folder / METADATA / WITNESS_JOURNAL)

    # -- start -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Watch the session to its end and finish what it left; the process's exit code."""
        if not self._taken.acquire(START_S if self.finish_only else 1.0):
            print("another sidecar sees to this session", file=sys.stderr)
            return 3
        self.journal = Journal(self._taken.path)
        self.link.open()
        if not self._wait_for_session():
            print(f"no session event in {self.view.path}", file=sys.stderr)
            return 4
        self._take_rig()
        if self.finish_only:
            self.dead.set()
        else:
            self._begin_watch()
        self.journal.write("sidecar_started", pid=os.getpid(), create_time=create_time(os.getpid()), finish=self.finish_only)
        held = self.rig_lock is None or self.rig_lock.held
        self.link.send(type="ready", pid=os.getpid(), memory_mb=round(memory_mb(), 1), lock=held)
        self._start_helpers()
        self._follow()
        self._conclude()
        return 0

    def _wait_for_session(self) -> bool:
        deadline = time.monotonic() + START_S
        while self.view.session is None:
            self.view.read()
            if time.monotonic() > deadline:
                return False
            if self.view.session is None:
                time.sleep(0.01)
        return True

    def _take_rig(self) -> None:
        state = self.view.state_directory
        if self.view.value("dry_run") or state is None or self.finish_only:
            return
        self.rig_lock = FileLock(state / "rig.sidecar.lock")
        self.guard("taking the rig's lock", self.rig_lock.acquire)

    def _begin_watch(self) -> None:
        started = self.view.value("create_time")
        self.watch = ProcessWatch(int(self.view.value("pid", 0)), float(started) if started is not None else None)
        threading.Thread(target=self._await_death, args=(self.watch,), name="watch", daemon=True).start()

    def _await_death(self, watch: ProcessWatch) -> None:
        while not watch.wait(60.0):
            continue
        self.dead.set()
        self.wake.set()

    def _start_helpers(self) -> None:
        """Import and start what helps; a greeting that never comes costs its secrets only."""
        greeting = self.link.wait_greeting(START_S)
        paths = [*greeting.get("sys_path", []), *self.view.value("import_path", [])]
        known = set(sys.path)
        sys.path += [str(entry) for entry in dict.fromkeys(paths) if entry not in known]
        self.secrets = frozenset(str(secret) for secret in greeting.get("secrets", []))

        def start() -> None:
            self.helpers = self._make_helpers(self)
            self.helpers.start()

        self.guard("starting the helpers", start)

    # -- on the way --------------------------------------------------------------------------------------------------

    def guard(self, what: str, action: Callable[[], object]) -> bool:
        """Run one part's action; what it raises goes to the sidecar's log and to the session, and nowhere else."""
        try:
            action()
            return True
        except Exception as error:
            print(f"{what} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            self.say("ERROR", f"{what} failed: {type(error).__name__}: {error}")
            return False

    def say(self, level: str, text: str, logger: str = "pytest_openscope.sidecar", terminal: bool = False) -> None:
        """Let the session log a line; without a session it goes to the sidecar's own log, a warning into the session's too."""
        ended = self.view.ended is not None
        if self.dead.is_set() or ended:
            print(f"{level} {logger}: {text}", file=sys.stderr, flush=True)
        if not self.dead.is_set():
            self.link.send(type="say", level=level, logger=logger, text=text, terminal=terminal)
        if ended and level != "INFO" and self.helpers is not None:
            self.helpers.log_late(level, text, logger)

    def _follow(self) -> None:
        """Take in the journal until the session has ended or its process is gone."""
        while True:
            died = self.dead.is_set()
            events = self.view.read()
            if self.helpers is not None:
                if events:
                    self.guard("following the session", partial(self.helpers.on_events, events))
                self.guard("supervising the mirror", self.helpers.tick)
            if died or self.view.ended is not None or self.view.discarded:
                return
            if self.rig_lock is not None and not self.rig_lock.held:
                self.guard("taking the rig's lock", self.rig_lock.acquire)
            wait_s = self._until_deadline()
            if wait_s <= 0 and self._deadline_stands():
                self._kill()
                return
            self.wake.wait(min(TICK_S, max(wait_s, 0.01)))
            self.wake.clear()

    def _until_deadline(self) -> float:
        deadline, now = self.view.deadline, time.monotonic()
        gap_s, self._looked = now - self._looked, now
        if deadline is None:
            return float("inf")
        self._allow_for_pauses(gap_s, now)
        return max(float(deadline["kill_at"]), self._patient_until) - now

    def _allow_for_pauses(self, gap_s: float, now: float) -> None:
        """Let a process that was stopped end its step by itself first, as its fixtures make the hardware safe then.

        The computer slept, or somebody stopped the process (Ctrl-Z, a debugger): it did not hang. Its grace period begins anew
        when it goes on.
        """
        stopped = self.watch is not None and is_stopped(self.watch.pid)
        if stopped or gap_s > _GAP_S:
            self._patient_until = now + float(self.view.value("grace_s", _GRACE_S))
        if stopped and not self._said_stopped:
            self.say("WARNING", "the experiment process is stopped (Ctrl-Z, a debugger): no timeout ends it until it goes on")
        self._said_stopped = stopped

    def _deadline_stands(self) -> bool:
        """Look once more: after a pause of this process the step may long be over."""
        self.view.read()
        return self._until_deadline() <= 0 and self.view.ended is None and not self.dead.is_set()

    def _kill(self) -> None:
        """End an experiment process that did not come back from a step; its stacks first, where nobody wrote them yet."""
        deadline = self.view.deadline or {}
        what = str(deadline.get("what") or "a step")
        assert self.journal is not None
        assert self.watch is not None
        self.journal.write("killed", what=what, kill_at=deadline.get("kill_at"))
        print(f"killing the experiment process: {what}", file=sys.stderr, flush=True)
        stacks = self.folder / METADATA / "faulthandler.log"
        if sys.platform != "win32" and not (stacks.exists() and stacks.stat().st_size):
            self.watch.kill(signal.SIGABRT)
            self.dead.wait(STACKS_S)
        if not self.dead.is_set():
            self.watch.kill()
            self.dead.wait(_KILL_WAIT_S)
        self.dead.set()

    # -- end ---------------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """Write the ending if the session could not, free the rig, and see mirror and reports through."""
        self.view.read()
        if self.view.ended is None and not self.view.discarded:
            self.guard("finishing the session", self._witness)
        if self.helpers is not None:
            self.guard("stopping the samples", self.helpers.stop_samples)
        if self.rig_lock is not None:
            self.rig_lock.release()
        helpers = self.helpers
        if helpers is not None and self.view.discarded:
            self.guard("taking the session back", helpers.discard)
        elif helpers is not None:
            self.guard("starting reports", helpers.start_reports)
            self.guard("finishing the mirror", helpers.finish_mirror)
            helpers.wait_for_reports()
        self.link.send(type="done")
        if helpers is not None and not self.view.discarded:
            self.guard("closing the books", helpers.close)
        self.link.flush(5.0)
        if self.journal is not None:
            self.journal.close()

    def _witness(self) -> None:
        from .witness import finish_session

        code = self.watch.exit_code() if self.watch is not None else None
        known: list[tuple[int, float]] = []
        helpers = self.helpers
        if helpers is not None:
            self.guard("stopping the samples", helpers.stop_samples)
            self.guard("naming the acquisition's processes", lambda: known.extend(helpers.known_processes()))
        assert self.journal is not None
        finish_session(
            self.view,
            self.journal,
            exit_code=code,
            secrets=self.secrets,
            known=known,
            terminal=str(self.link.greeting.get("terminal") or ""),
        )
        self.view.read()
