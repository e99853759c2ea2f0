"""The sidecar: one process per session that sees to what the experiment process must not wait for or cannot do any more.

It follows the session's journal, watches the experiment process, ends it when a step's deadline has passed, and finishes the
session when it died. Mirror, resource samples and reports are helpers that it starts after it is ready. Until the session has
told where its packages lie, nothing but this package and the standard library can be imported.

``main([--folder SESSION_FOLDER, --finish | --watch HANDLE])`` runs one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ..records import METADATA, WITNESS_JOURNAL, Journal
from ..system import FileLock, ProcessWatch, awake_s, boot_id, create_time, go_last, in_a_job, is_stopped
from .helpers import Helpers
from .link import Link
from .reconstruct import FAULT_LOG, SessionView
from .witness import Witness

TICK_S = 0.2
#: The same before the steps are known, which begins the mirror.
_QUICK_TICK_S = 0.02
#: How long the ``session`` event and the greeting may take.
START_S = 10.0
#: A hung process gets so long to write its stacks before it is killed.
STACKS_S = 1.0
#: A step is ended by its own process; only after so long without effect by this one (``grace_s``).
_GRACE_S = 10.0
#: Between two looks passes this much at most, unless the computer slept or this process was stopped.
_GAP_S = 2.0
_KILL_WAIT_S = 5.0
#: Of Windows: the sidecar was to leave the job and was not allowed to.
_KEPT_IN_JOB = (
    "what started this session keeps all its processes in one job: when that ends, the sidecar and copies in the background end"
    " with it; then the rig's next session, or `openscope recover`, writes the ending"
)


class PatientStderr(io.TextIOBase):
    """The sidecar's log, which lies on the session's disk: what a full one does not take must not end the sidecar."""

    def write(self, text: str) -> int:
        """Write past any buffer, whose end would be tried again and again."""
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)


def _detach() -> None:
    """Let nothing meant for the experiment reach this process: signals of its terminal."""
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM", "SIGBREAK", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    go_last()
    os.chdir(Path(sys.executable).anchor or os.sep)


class Sidecar:
    """One session's sidecar; :meth:`run` returns when nothing is left to do."""

    journal: Journal
    helpers: Helpers

    def __init__(self, folder: Path, finish: bool, lent_watch: int | None) -> None:
        self.folder = folder
        self._lent_watch = lent_watch
        self.finish_only = finish
        self.view = SessionView(folder)
        self.dead = threading.Event()
        #: The process is gone, or says that its session is over.
        self._wake = threading.Event()
        self.link = Link(self._wake.set)
        self.watch: ProcessWatch | None = None
        self.rig_lock: FileLock | None = None
        self._looked = time.monotonic()
        self._patient_until = 0.0
        self._said_stopped = False

    # -- start -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Watch the session to its end and finish what it left; the process's exit code."""
        taken = FileLock(self.folder / METADATA / WITNESS_JOURNAL)
        if not taken.acquire(START_S if self.finish_only else 1.0):
            print("another sidecar sees to this session", file=sys.stderr)
            return 3
        self.journal = Journal(taken.path)
        self.helpers = Helpers(self.view, self.journal, self.link, self.dead)
        if not self._wait_for_session():
            print(f"no session event in {self.view.path}", file=sys.stderr)
            return 4
        if self.finish_only:
            self.dead.set()
        else:
            if not self.view.value("dry_run"):
                self.rig_lock = FileLock(self.view.state_directory / "rig.sidecar.lock")
            self._hold_rig()
            self.watch = ProcessWatch(*self.view.process, self._lent_watch)
            threading.Thread(target=self._await_death, args=(self.watch,), name="watch", daemon=True).start()
        facts = {"pid": os.getpid(), "create_time": create_time(os.getpid()), "finish": self.finish_only}
        self.journal.write("sidecar_started", **facts, boot=boot_id())
        self.link.send(type="ready", pid=os.getpid())
        self._wait_for_greeting()
        if not self.finish_only and in_a_job():
            self.helpers.say("WARNING", _KEPT_IN_JOB, terminal=True)
        self.helpers.start(self.finish_only)
        self._follow()
        self._conclude()
        return 0

    def _wait_for_session(self) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.view.read()
            if self.view.session is not None:
                return True
            time.sleep(0.01)
        return False

    def _hold_rig(self) -> None:
        """Let the rig's next session wait for this one's end, also where an earlier one's sidecar still held it."""
        if self.rig_lock is not None and not self.rig_lock.held:
            self.helpers.guard("taking the rig's lock", self.rig_lock.acquire)

    def _await_death(self, watch: ProcessWatch) -> None:
        while not watch.wait(60.0):
            continue
        # At once, and kept: it is known until the parent has taken it.
        watch.exit_code()
        self.dead.set()
        self._wake.set()

    def _wait_for_greeting(self) -> None:
        """Learn where packages lie, and the secrets; a greeting that never comes costs its secrets only."""
        greeting = self.link.wait_greeting(START_S)
        self.helpers.secrets = frozenset(greeting.get("secrets", ()))
        for entry in (*greeting.get("sys_path", ()), *self.view.value("import_path", ())):
            if entry not in sys.path:
                sys.path.append(entry)

    # -- on the way --------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Take in the journal until the session has ended or its process is gone."""
        while True:
            died = self.dead.is_set()
            self.view.read()
            self.helpers.follow()
            if died or self.view.ended is not None or self.view.discarded:
                return
            self._hold_rig()
            wait_s = self._until_deadline()
            if wait_s <= 0 and self._deadline_stands():
                self._kill()
                return
            self._wake.wait(min(TICK_S if self.view.collected else _QUICK_TICK_S, max(wait_s, 0.01)))
            self._wake.clear()

    def _until_deadline(self) -> float:
        deadline, now, looked = self.view.deadline, awake_s(), time.monotonic()
        gap_s, self._looked = looked - self._looked, looked
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
            text = "the experiment process is stopped (Ctrl-Z, a debugger): no timeout ends it until it goes on"
            self.helpers.say("WARNING", text)
        self._said_stopped = stopped

    def _deadline_stands(self) -> bool:
        """Look once more: after a pause of this process the step may long be over."""
        self.view.read()
        return self._until_deadline() <= 0 and self.view.ended is None and not self.dead.is_set()

    def _kill(self) -> None:
        """End an experiment process that did not come back from a step; its stacks first, where nobody wrote them yet."""
        deadline = self.view.deadline or {}
        what = str(deadline.get("what") or "a step")
        assert self.watch is not None
        self.journal.write("killed", what=what, kill_at=deadline.get("kill_at"))
        print(f"killing the experiment process: {what}", file=sys.stderr, flush=True)
        stacks = self.folder / METADATA / FAULT_LOG
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
        helpers = self.helpers
        self.view.read()
        if helpers.sampler is not None:
            helpers.guard("stopping the samples", helpers.sampler.stop)
        if self.view.ended is None and not self.view.discarded:
            helpers.guard("finishing the session", self._witness)
        if self.rig_lock is not None:
            self.rig_lock.release()
        if helpers.alerts is not None and not self.view.discarded:
            helpers.guard("alerting", helpers.alerts.session_over)
        helpers.guard("running the rest of post-acquisition", helpers.rescue)
        helpers.conclude()
        self.link.flush(5.0)
        self.journal.close()

    def _witness(self) -> None:
        sampler = self.helpers.sampler
        Witness(self.view, self.journal, self.helpers.secrets).finish(
            exit_code=self.watch.exit_code() if self.watch is not None else None,
            known=sampler.known_processes() if sampler is not None else (),
            terminal=str(self.link.greeting.get("terminal") or ""),
        )
        self.view.read()


def main(args: Sequence[str]) -> int:
    """Run a sidecar; ``--finish`` takes a session whose experiment process is known to be gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--finish", action="store_true")
    parser.add_argument("--watch", type=int, help="handle that the experiment process has lent to itself")
    options = parser.parse_args(args)
    folder = options.folder.absolute()
    sys.stderr = PatientStderr()
    _detach()
    return Sidecar(folder, options.finish, options.watch).run()
