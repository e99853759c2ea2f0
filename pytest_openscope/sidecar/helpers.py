"""What the sidecar runs beside its watch: the mirror, resource samples, reports, alerts, and the note of what is owed.

Each is guarded alone, so that a fault in one costs neither the others nor the watch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

from ..log import ExactMasker, LogWriter
from ..mirror import MirrorJob, MirrorStatus, MirrorSupervisor
from ..records import END_STATE, METADATA, Journal, take
from ..system import command_line, create_time, spawn_detached, update_json
from .alerts import Alerts
from .link import SIDECAR_LOG, Link
from .notes import unmark
from .otel import SENT, OtelSupervisor
from .reconstruct import SessionView
from .reports import send_reports, send_waiting, wanted
from .rescue import add_to_states, is_owed, run_unreached, unreached_steps
from .samples import RESOURCE_USAGE, ResourceSampler

LOGGER = "pytest_openscope.sidecar"
ISSUES_LOGGER = "pytest_openscope.issues"
_MIRROR_FINISH_S = 600.0
#: The copies of the states, which tell of the mirror itself, are brought up to date for so long.
_REFRESH_S = 10.0
_FINISH_TICK_S = 0.05
_TELL_S = 0.5
#: How often a running session hears how far its mirror is behind.
_LAG_S = 2.0
#: Reports that take longer stay in the outbox for the next session.
REPORTS_S = 120.0
_REPORTS_SPARE_S = 10.0
_REPORTS_TICK_S = 0.2


class Helpers:
    """The sidecar's helpers, and its voice: :meth:`say` and :meth:`guard`."""

    def __init__(self, view: SessionView, journal: Journal, link: Link, dead: threading.Event) -> None:
        self.view, self.journal, self.link, self.dead = view, journal, link, dead
        self.secrets: frozenset[str] = frozenset()
        self.mirror: MirrorSupervisor | None = None
        self.sampler: ResourceSampler | None = None
        self.alerts: Alerts | None = None
        self.otel: OtelSupervisor | None = None
        self._otel_begun = False
        self._failed: set[tuple[str, type[Exception]]] = set()
        self._reports: threading.Thread | None = None
        self._held: list[tuple[str, str, str]] | None = None
        self._logged = threading.Event()
        self._lag_told = float("-inf")
        self._last: dict[str, Any] = {"status": "off", "bytes_behind": 0, "reason": ""}

    # -- what it says ------------------------------------------------------------------------------------------------

    def guard(self, what: str, action: Callable[[], object]) -> None:
        """Run one part's action; what it raises goes to the sidecar's log and to the session, and nowhere else.

        The first error of its kind does: what fails in every look would fill the disk.
        """
        try:
            action()
        except Exception as error:
            if (what, type(error)) in self._failed:
                return
            self._failed.add((what, type(error)))
            print(f"{what} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            self.say("ERROR", f"{what} failed: {type(error).__name__}: {error}")

    def say(self, level: str, text: str, logger: str = LOGGER, terminal: bool = False) -> None:
        """Let the session log a line; without a session it goes to the sidecar's own log, a warning into the session's too."""
        ended = self.view.ended is not None
        if self.dead.is_set() or ended:
            print(f"{level} {logger}: {text}", file=sys.stderr, flush=True)
        if not self.dead.is_set():
            self.link.send(type="say", level=level, logger=logger, text=text, terminal=terminal)
        # A copy that is verified must stay true.
        if ended and level != "INFO" and self._last["status"] != "verified":
            try:
                self._append(level, text, logger)
            except OSError as error:
                print(f"the session log cannot be written: {error}", file=sys.stderr, flush=True)

    def _append(self, level: str, text: str, logger: str) -> None:
        """Append a record to the log of the session that has ended, which is the sidecar's now; the mirror's copy follows.

        While another process runs the rest of post-acquisition the log is that one's, and the record waits.
        """
        if self._held is not None:
            self._held.append((level, text, logger))
            return
        log = LogWriter(self.view.log_path)
        try:
            log.record(level, logger, ExactMasker(self.secrets)(text))
        finally:
            log.close()

    # -- on the way --------------------------------------------------------------------------------------------------

    def start(self, finish_only: bool) -> None:
        """Start all of them; for a session whose process is gone only the mirror."""
        self._otel_begun = finish_only
        self.guard("noting the unfinished session", self.view.mark_unfinished)
        self.guard("starting the alerts", self._start_alerts)
        if finish_only:
            self.guard("starting the mirror", self._start_mirror)
        else:
            self.guard("starting the resource samples", self._start_samples)
            self.guard("starting earlier reports", self._start_old_reports)
            self.guard("going on with earlier archives", self._go_on_with_archives)

    def _start_alerts(self) -> None:
        urls = [str(url) for url in self.link.greeting.get("alert_urls") or ()]
        if urls and self.view.value("alerts"):
            self.alerts = Alerts(self.view, self.journal, urls, self.secrets, self.say)

    def _start_mirror(self) -> None:
        view, directory = self.view, self.view.value("mirror_directory")
        if not directory or self.mirror is not None:
            return
        job = MirrorJob(
            log_path=str(view.log_path),
            mirror_directory=str(directory),
            rig_id=str(view.value("rig_id", "")),
            session_uuid=view.uuid,
            started=str(view.value("started", "")),
            state_directory=str(view.state_directory),
        )
        self.mirror = MirrorSupervisor(job, self.say)

    def _see_to_otel(self) -> None:
        """Begin to send, and go on; what a dead session owes is sent by the rig's next one, which knows today's collector."""
        view = self.view
        if not self._otel_begun and (view.collected or view.ended is not None):
            self._otel_begun = True
            if view.value("otel") and SENT not in view.done:
                self.otel = OtelSupervisor(view, self.journal, self.say)
        if self.otel is not None:
            self.otel.tick()

    def _start_samples(self) -> None:
        view = self.view
        self.sampler = ResourceSampler(
            view.folder / METADATA / RESOURCE_USAGE,
            *view.process,
            float(view.value("resource_interval_s", 5.0)),
            str(view.folder),
            self.say,
            low_disk_gb=float(view.value("low_disk_gb", 5.0)),
            low_memory_percent=float(view.value("low_memory_percent", 95.0)),
        )
        self.sampler.start()

    def follow(self) -> None:
        """Go on a little; called about every 0.2 s, never waits."""
        if self.sampler is not None:
            self.guard("following the acquisitions", partial(self.sampler.follow, self.view.acquisitions))
        self.guard("taking what people say", self._take_inbox)
        self.guard("supervising the mirror", self._tick)
        self.guard("sending to the collector", self._see_to_otel)
        if self.alerts is not None:
            self.guard("looking for what people are told", self.alerts.look)

    def _take_inbox(self) -> None:
        """Hand on what people say from other processes; without an experiment process it goes into the record at once."""
        for message in take(self.view.folder):
            if message.get("type") == "note" and self.dead.is_set():
                text = ExactMasker(self.secrets)(str(message.get("text")))
                self.journal.write("kept", field="notes", values=[text])
            elif message.get("type") in ("note", "answer", "stop"):
                self.link.send(**message)

    def _tick(self) -> None:
        """See to the mirror's worker; never touches the share itself."""
        if self.view.collected:
            # Not before: what a mistyped command line began is taken back, and nothing of it may be in the mirror.
            self._start_mirror()
        if self.mirror is None:
            return
        self.mirror.tick()
        now = time.monotonic()
        if not self.dead.is_set() and self.view.ended is None and now - self._lag_told >= _LAG_S:
            self._lag_told = now
            status = self.mirror.status()
            self.link.send(type="mirror_lag", bytes_behind=status.bytes_behind, reason=status.reason)

    # -- the end -----------------------------------------------------------------------------------------------------

    def rescue(self) -> None:
        """Run the steps of post-acquisition that a session did not reach whose process died; reports do not wait for it."""
        view = self.view
        if view.discarded or not is_owed(view):
            return
        leave = view.value("on_crash", "stop") == "leave" and view.same_boot
        if leave and any(one.finished is None and one.lives for one in view.acquisitions.values()):
            self.say(
                "WARNING", "the rest of post-acquisition waits for 'resume', since the acquisition goes on (on_crash: leave)"
            )
            return
        self._held = []
        try:
            self.guard("starting reports", self._start_reports)
            tell = partial(self.say, "ERROR")
            problem = run_unreached(view, tell, lambda: self.guard("supervising the mirror", self._tick))
        finally:
            held, self._held = self._held, None
            for record in held:
                self.guard("logging what waited", partial(self._append, *record))
        add_to_states(view, self.secrets, problem)
        if problem:
            steps = ", ".join(unreached_steps(view))
            command = command_line(["openscope", "resume", str(view.folder)])
            self.say("ERROR", f"not run after the crash: {steps}: {problem}; to run them: {command}")

    def conclude(self) -> None:
        """See mirror and reports through, and take the note away when nothing is owed; say ``done`` in between."""
        if self.view.discarded:
            self.guard("taking the session back", self._unmark)
            self.link.send(type="done")
            return
        self.guard("starting reports", self._start_reports)
        self.guard("finishing the mirror", self._finish_mirror)
        self._wait_for_reports()
        self.link.send(type="done")
        if self.alerts is not None:
            self.guard("sending alerts", self.alerts.wait)
        self.guard("closing the books", self._close)
        self.guard("beginning to send to the collector", self._see_to_otel)
        if self.otel is not None:
            self.guard("sending the rest to the collector", self.otel.finish)
        self.guard("making the session report", self.make_report)
        self.guard("handing over the archive", self._hand_over_archives)

    def _finish_mirror(self) -> None:
        """Bring the mirror to its end within ``mirror_finish_s``, telling the session how it stands meanwhile."""
        self._start_mirror()
        if self.mirror is not None:
            limit_s = float(self.view.value("mirror_finish_s", _MIRROR_FINISH_S))
            self._note(self._settle(self.mirror, limit_s, self._still_pending), self.mirror.sha256)
        self.link.send(type="mirror", **self._last)

    def _settle(self, mirror: MirrorSupervisor, limit_s: float, tell: Callable[[MirrorStatus], None]) -> MirrorStatus:
        mirror.finish_soon()
        start = told = time.monotonic()
        while (now := time.monotonic()) - start < limit_s:
            self.guard("supervising the mirror", self._tick)
            status = mirror.status()
            if status.status == "verified":
                break
            if now - told > _TELL_S:
                told = now
                tell(status)
            time.sleep(_FINISH_TICK_S)
        return mirror.status()

    def _still_pending(self, status: MirrorStatus) -> None:
        """Say it on the pipe, and once per reason in ``end_state.json``, which may stand like that for minutes."""
        self.link.send(type="mirror", **asdict(status))
        if status.reason != self._last["reason"] or status.bytes_behind > self._last["bytes_behind"]:
            self.guard("noting the mirror's status", partial(self._note, status))

    def _note(self, status: MirrorStatus, sha256: str = "") -> None:
        """Write the mirror's status into ``end_state.json``."""
        self._last = asdict(status) | ({"sha256": sha256} if sha256 else {})
        update_json(self.view.folder / METADATA / END_STATE, lambda state: state.update(mirror=self._last))

    def _start_old_reports(self) -> None:
        """Send what earlier sessions left; the drain at the end waits for this one."""
        if not wanted(self.view):
            return
        # Not above: it takes longer than all the rest of a sidecar's start.
        from ..issues import waiting

        if waiting(self.view.state_directory):
            self._in_thread("sending earlier reports", lambda: send_waiting(self.view, self.secrets, REPORTS_S))

    def _in_thread(self, what: str, action: Callable[[], object]) -> threading.Thread:
        """GitHub and the share do not wait for each other."""
        thread = threading.Thread(target=self.guard, args=(what, action), name=what, daemon=True)
        thread.start()
        return thread

    def _start_reports(self) -> None:
        """Send what the outbox holds; once more where steps that were made up for have failed."""
        if self._reports is not None:
            if not self.view.rescue_failed:
                return
            self._reports.join(REPORTS_S)
        if wanted(self.view):
            told = (self._tell_answer, self._tell_left)
            send = partial(send_reports, self.view, self.journal, self.secrets, REPORTS_S, *told)
            self._reports = self._in_thread("sending reports", send)
        else:
            self._tell_left(0)

    def _tell_answer(self, answer: dict[str, Any]) -> None:
        status, url, reason = answer.get("status"), answer.get("issue_url"), answer.get("reason")
        text = f"report {answer.get('fingerprint')}: {status} {url or ''}".rstrip() + (f" ({reason})" if reason else "")
        self.guard("logging the report", lambda: self._append("INFO" if url else "WARNING", text, ISSUES_LOGGER))
        self._logged.set()
        self.link.send(**{**answer, "type": "report"})

    def _tell_left(self, count: int) -> None:
        self.link.send(type="reports", left=count)

    def _wait_for_reports(self) -> None:
        """Give the reports a bounded time; what is left stays in the outbox. A line on them goes into the mirror as well."""
        deadline = time.monotonic() + REPORTS_S + _REPORTS_SPARE_S
        waiting = self._reports is not None
        while waiting and self._reports is not None:
            self._reports.join(_REPORTS_TICK_S)
            waiting = self._reports.is_alive() and time.monotonic() < deadline
            if self._logged.is_set() and self._last["status"] == "verified":
                self._logged.clear()
                self.guard("mirroring the line on the report", self._finish_mirror)

    def _close(self) -> None:
        """Bring the copied states up to date, end the worker, and take the note away when nothing is owed."""
        settled = self._last["status"] != "pending"
        if self.mirror is not None:
            if settled:
                self._settle(self.mirror, _REFRESH_S, lambda _: None)
            self.mirror.stop()
        # An ending that could not be written is owed to the next session on this rig.
        if settled and self.view.ended is not None:
            self.journal.write("finished", mirror=self._last["status"])
            self._unmark()

    def _go_on_with_archives(self) -> None:
        """Let earlier sessions' archives be finished, by processes of low priority."""
        state = self.view.state_directory
        if not (state / "archives").is_dir() or self.view.value("dry_run"):
            return
        from ..modules import go_on_with_archives

        for line in go_on_with_archives(state):
            self.say("WARNING", f"an earlier archive is not complete and goes on: {line}", terminal=True)

    def _hand_over_archives(self) -> None:
        """Let what this session owes be archived: its own files, and everything that was put off or not finished."""
        if (self.view.folder / METADATA / "archive_jobs").is_dir():
            from ..modules import hand_over_archives

            hand_over_archives(self.view.folder, self.view.state_directory, (os.getpid(), create_time(os.getpid())))

    def make_report(self) -> None:
        """Begin to make the session's report: a process of its own, of low priority, which outlives this one."""
        view = self.view
        if not view.value("session_report") or view.ended is None or find_spec("bokeh") is None or find_spec("jinja2") is None:
            return
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "pytest_openscope", "report", str(view.folder)]
        with open(view.folder / METADATA / SIDECAR_LOG, "ab") as output:
            process = spawn_detached(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        process.returncode = 0  # it outlives this process; Popen's finalizer would warn that it does

    def _unmark(self) -> None:
        unmark(self.view.state_directory, self.view.uuid)
