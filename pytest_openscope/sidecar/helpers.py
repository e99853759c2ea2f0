"""What the sidecar runs beside its watch: the mirror, the resource samples, the reports, and the note of what is owed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..mirror import MirrorJob, MirrorSupervisor
from ..records import END_STATE, METADATA
from ..system import update_json
from .markers import mark_unfinished, unmark
from .samples import RESOURCE_USAGE, ResourceSampler

if TYPE_CHECKING:
    from ..mirror import MirrorStatus
    from .loop import Sidecar

MIRROR_LOGGER = "pytest_openscope.mirror"
MIRROR_FINISH_S = 600.0
RESOURCE_INTERVAL_S = 5.0
#: The copies of the states, which tell of the mirror itself, are brought up to date for so long.
_REFRESH_S = 10.0
_FINISH_TICK_S = 0.02
_TELL_S = 0.5
#: Reports that take longer stay in the outbox for the next session.
REPORTS_S = 120.0
_REPORTS_SPARE_S = 10.0
_REPORTS_TICK_S = 0.2
#: A mirror whose supervision fails so often is given up.
_MAX_FAULTS = 3


class SessionHelpers:
    """The sidecar's helpers; whatever one of them raises is the caller's to guard."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar, self.view = sidecar, sidecar.view
        self.mirror: MirrorSupervisor | None = None
        self.sampler: ResourceSampler | None = None
        self._reports: threading.Thread | None = None
        self._logged = threading.Event()
        self._faults = 0
        self._last: dict[str, Any] = {"status": "off", "bytes_behind": 0, "reason": ""}

    def start(self) -> None:
        """Start everything, each guarded alone."""
        guard = self.sidecar.guard
        guard("noting the unfinished session", self._mark)
        if self.view.collected or self.sidecar.finish_only:
            guard("starting the mirror", self._start_mirror)
        if not self.sidecar.finish_only:
            guard("starting the resource samples", self._start_samples)
            guard("starting earlier reports", self._start_old_reports)

    def _mark(self) -> None:
        state = self.view.state_directory
        if state is not None:
            mark_unfinished(state, self._uuid, self.view.folder, self.view.value("mirror_directory"))

    @property
    def _uuid(self) -> str:
        return str(self.view.value("session_uuid", self.view.folder.name))

    def _start_mirror(self) -> None:
        view, directory, state = self.view, self.view.value("mirror_directory"), self.view.state_directory
        if not directory or state is None or self.mirror is not None:
            return
        job = MirrorJob(
            session_folder=str(view.folder),
            log_path=str(view.log_path),
            mirror_directory=str(directory),
            rig_id=str(view.value("rig_id", "")),
            session_uuid=self._uuid,
            started=str(view.value("started", "")),
            state_directory=str(state),
        )
        self.mirror = MirrorSupervisor(job)
        self.mirror.start()

    def _start_samples(self) -> None:
        view, say = self.view, self.sidecar.say
        started = view.value("create_time")
        self.sampler = ResourceSampler(
            view.folder / METADATA / RESOURCE_USAGE,
            int(view.value("pid", 0)),
            float(started) if started is not None else None,
            float(view.value("resource_interval_s", RESOURCE_INTERVAL_S)),
            str(view.value("resource_disk", view.folder)),
            lambda level, text, logger, terminal: say(level, text, logger, terminal),
            low_disk_gb=float(view.value("low_disk_gb", 5.0)),
            low_memory_percent=float(view.value("low_memory_percent", 95.0)),
            summary_s=float(view.value("resource_summary_s", 300.0)),
        )
        for acquisition in view.acquisitions.values():
            if acquisition.finished is None and acquisition.pid:
                self.sampler.acquisition_started(acquisition.name, acquisition.pid, acquisition.create_time)
        self.sampler.start()

    def on_events(self, events: Iterable[dict[str, Any]]) -> None:
        """Take what the samples need from the journal."""
        sampler = self.sampler
        if sampler is None:
            return
        for event in events:
            if event["event"] == "acquisition_started" and event.get("pid"):
                acquisition = self.view.acquisitions[str(event["name"])]
                sampler.acquisition_started(acquisition.name, acquisition.pid, acquisition.create_time)
            elif event["event"] == "acquisition_finished":
                sampler.acquisition_finished(str(event["name"]))

    def tick(self) -> None:
        """See to the mirror's worker; called about every 0.2 s, never touches the share itself."""
        if self.mirror is None and self.view.collected:
            # Not before: what a mistyped command line began is taken back, and nothing of it may be in the mirror.
            self._start_mirror()
        if self.mirror is None or self._faults >= _MAX_FAULTS:
            return
        try:
            for notice in self.mirror.tick():
                self.sidecar.say(notice.level, notice.text, MIRROR_LOGGER, notice.terminal)
        except Exception:
            self._faults += 1
            raise

    def known_processes(self) -> list[tuple[int, float]]:
        """Return pid and start time of each process seen alive in an acquisition's tree."""
        return self.sampler.known_processes() if self.sampler is not None else []

    def log_late(self, level: str, text: str, logger: str) -> None:
        """Put a warning into the log of the session that has ended, unless its copy is verified, which must stay true."""
        if self._last["status"] == "verified":
            return
        from .late import append_late

        try:
            append_late(self.view, level, logger, text, self.sidecar.secrets)
        except OSError as error:
            print(f"the session log cannot be written: {error}", file=sys.stderr, flush=True)

    def stop_samples(self) -> None:
        """Complete ``resource_usage.json``."""
        if self.sampler is not None:
            self.sampler.stop()

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish_mirror(self) -> None:
        """Bring the mirror to its end within ``mirror_finish_s``, telling the session how it stands meanwhile."""
        self._start_mirror()
        mirror = self.mirror
        if mirror is None:
            self._tell({"status": "off", "bytes_behind": 0, "reason": ""})
            return
        mirror.finish_soon()
        limit_s = float(self.view.value("mirror_finish_s", MIRROR_FINISH_S))
        status = self._settle(mirror, limit_s, partial(self._still_pending, mirror))
        self._note(mirror, status)
        self._tell(self._last)

    def _settle(self, mirror: MirrorSupervisor, limit_s: float, tell: Callable[[MirrorStatus], None]) -> MirrorStatus:
        start = told = time.monotonic()
        while time.monotonic() - start < limit_s and self._faults < _MAX_FAULTS:
            self.sidecar.guard("supervising the mirror", self.tick)
            status = mirror.status()
            if status.settled:
                break
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                tell(status)
            time.sleep(_FINISH_TICK_S if told - start < limit_s / 10 else 10 * _FINISH_TICK_S)
        return mirror.status()

    def _still_pending(self, mirror: MirrorSupervisor, status: MirrorStatus) -> None:
        """Say it on the pipe, and once per reason in ``end_state.json``, which may stand like that for minutes."""
        self._tell({"status": status.status, "bytes_behind": status.bytes_behind, "reason": status.reason})
        if status.reason != self._last["reason"] or status.bytes_behind > self._last["bytes_behind"]:
            self.sidecar.guard("noting the mirror's status", partial(self._note, mirror, status))

    def _note(self, mirror: MirrorSupervisor, status: MirrorStatus) -> None:
        """Write the mirror's status into ``end_state.json``."""
        self._last = {"status": status.status, "bytes_behind": status.bytes_behind, "reason": status.reason}
        if mirror.sha256:
            self._last["sha256"] = mirror.sha256
        update_json(self.view.folder / METADATA / END_STATE, lambda state: state.update(mirror=self._last))

    def _tell(self, status: dict[str, Any]) -> None:
        self.sidecar.link.send(type="mirror", **status)

    def _start_old_reports(self) -> None:
        """Send what earlier sessions left; the drain at the end waits for this one."""
        from .reports import send_waiting, wanted

        state = self.view.state_directory
        if state is None or not wanted(self.view):
            return
        from ..issues import waiting

        if waiting(state):
            drain = partial(send_waiting, self.view, self.sidecar.secrets, REPORTS_S)
            send = partial(self.sidecar.guard, "sending earlier reports", drain)
            threading.Thread(target=send, name="earlier-reports", daemon=True).start()

    def start_reports(self) -> None:
        """Send what the outbox holds, in a thread: GitHub and the share do not wait for each other."""
        from .reports import wanted

        if not wanted(self.view):
            self._tell_left(0)
            return
        self._reports = threading.Thread(
            target=lambda: self.sidecar.guard("sending reports", self._drain), name="reports", daemon=True
        )
        self._reports.start()

    def _drain(self) -> None:
        from .reports import log_answer, send_reports

        def tell(answer: dict[str, Any]) -> None:
            self.sidecar.guard("logging the report", partial(log_answer, self.view, answer, self.sidecar.secrets))
            self._logged.set()
            self.sidecar.link.send(**{**answer, "type": "report"})

        assert self.sidecar.journal is not None
        send_reports(self.view, self.sidecar.journal, self.sidecar.secrets, REPORTS_S, tell, self._tell_left)

    def _tell_left(self, count: int) -> None:
        self.sidecar.link.send(type="reports", left=count)

    def wait_for_reports(self) -> None:
        """Give the reports a bounded time; what is left stays in the outbox. A line on them goes into the mirror as well."""
        deadline = time.monotonic() + REPORTS_S + _REPORTS_SPARE_S
        while self._reports is not None and self._reports.is_alive() and time.monotonic() < deadline:
            self._reports.join(_REPORTS_TICK_S)
            self._mirror_the_answers()
        self._mirror_the_answers()

    def _mirror_the_answers(self) -> None:
        if self._logged.is_set() and self._last["status"] != "pending":
            self._logged.clear()
            if self.mirror is not None:
                self.sidecar.guard("mirroring the line on the report", self.finish_mirror)

    def discard(self) -> None:
        """Take the note of the session away: nothing is owed."""
        if self.view.state_directory is not None:
            unmark(self.view.state_directory, self._uuid)

    def close(self) -> None:
        """Bring the copied states up to date, end the worker, and take the note away when nothing is owed."""
        settled = self._last["status"] != "pending"
        if self.mirror is not None:
            if settled:
                self.mirror.refresh_metadata()
                self._settle(self.mirror, _REFRESH_S, lambda _: None)
            self.mirror.stop()
        if self.view.ended is None:
            return  # Its ending could not be written: that is owed to the next session on this rig.
        if settled and self.sidecar.journal is not None:
            self.sidecar.journal.write("finished", mirror=self._last["status"])
            if self.view.state_directory is not None:
                unmark(self.view.state_directory, self._uuid)
