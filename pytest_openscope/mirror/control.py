"""Supervises the mirror's worker from the sidecar's loop. Nothing here touches the share or waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from ..system import Retry, WorkerProcess, light_command
from .files import MirrorJob

LOGGER = "pytest_openscope.mirror"
_WORKER = "pytest_openscope.mirror.worker"
_GOOD = ("following", "verified")
_NOT_RUNNING = "the mirror's process is not running yet"
#: A longer time between two ticks was a pause of this process or the computer, no silence of the worker.
_PAUSE_S = 2.0


@dataclass(frozen=True)
class MirrorStatus:
    """``verified`` (length and SHA-256 equal, every line in the day's log), or ``pending`` with the reason."""

    status: str
    bytes_behind: int = 0
    reason: str = ""


@dataclass(frozen=True)
class MirrorTuning:
    """Times in seconds.

    Attributes:
        hang_s: without a sign of life for so long the worker is killed.
        start_s: the same before its first sign of life, which comes before it touches the share: a virus scanner, or a computer
            with too much to do, may hold up its start, and the next one's too.
        warn_s: after this the operator is told.
    """

    hang_s: float = 10.0
    start_s: float = 60.0
    warn_s: float = 3.0
    warn_error_s: float = 1.5
    flap_s: float = 60.0
    retry_first_s: float = 1.0
    retry_most_s: float = 60.0
    stop_s: float = 0.3


class MirrorSupervisor:
    """Keeps one worker at the mirror of one session.

    A worker that gives no sign of life for ``hang_s`` is killed and never waited for; the next one waits for its local lock.

    Args:
        say: gets level, text, logger and whether the operator should see it.
    """

    def __init__(
        self,
        job: MirrorJob,
        say: Callable[[str, str, str, bool], None],
        tuning: MirrorTuning | None = None,
        worker_command: Sequence[str] | None = None,
    ) -> None:
        self.job, self.say = job, say
        self.tuning = tuning or MirrorTuning()
        self._command = [*(worker_command or light_command(_WORKER, [])), job.to_json()]
        self._child: WorkerProcess | None = None
        #: When the present worker's first report came.
        self._runs_since: float | None = None
        self._holding_since: float | None = None
        self._dead: list[Popen[bytes]] = []
        self._retry = Retry(self.tuning.retry_first_s, self.tuning.retry_most_s)
        self._latest: dict[str, Any] = {}
        self._order = 0
        self._stopped = False
        self._last_tick = time.monotonic()
        self._bad_since: float | None = None
        #: What the operator was told of a share that cannot be written.
        self._warned = ""
        self._last_back = -1e9
        self._problem = ""
        self._start_child()

    @property
    def pids(self) -> list[int]:
        """The worker's process id, and those of killed workers that have not gone yet."""
        children = [self._child.process] if self._child else []
        return [process.pid for process in (*children, *self._dead) if process.poll() is None]

    @property
    def copied_bytes(self) -> int:
        """Bytes of the session log that the share has confirmed, as last heard."""
        return int(self._latest.get("copied") or 0)

    @property
    def sha256(self) -> str:
        """Digest of the verified copy, or ""."""
        return str(self._latest.get("sha256") or "")

    def finish_soon(self) -> None:
        """The session log is complete: copy the rest and the metadata files, then verify; again when a file has changed."""
        self._order += 1
        self._retry.soon()
        self._tell_order()

    def tick(self) -> None:
        """Read the worker's reports, replace a hung or dead worker, and warn; called about every 0.2 s."""
        if self._stopped:
            return
        now = time.monotonic()
        pause_s, self._last_tick = now - self._last_tick, now
        self._dead = [process for process in self._dead if process.poll() is None]
        self._hear()
        child = self._child
        if child is None:
            if now >= self._retry.due_mono:
                self._start_child()
        elif child.process.poll() is not None and not child.reports:
            self._lose(child, self._problem or "the mirror's process ended")
        else:
            if pause_s > _PAUSE_S:
                child.heard_mono += pause_s
            tuning = self.tuning
            holding_s = 0.0 if self._holding_since is None else now - self._holding_since
            patience_s = tuning.hang_s if self._runs_since is not None else max(tuning.start_s, tuning.hang_s)
            if now - child.heard_mono > patience_s or holding_s > tuning.hang_s:
                child.process.kill()
                self._dead.append(child.process)
                self._lose(child, self._silence())
        self._judge(now)

    def status(self) -> MirrorStatus:
        """Return where the mirror stands, from the last reports and the session log's length."""
        try:
            size = Path(self.job.log_path).stat().st_size
        except FileNotFoundError:
            return MirrorStatus("pending", 0, "the session log is missing")
        latest = self._latest
        if self._order and latest.get("order") == self._order and latest.get("verified") == size:
            return MirrorStatus("verified")
        behind = max(0, size - self.copied_bytes)
        if latest.get("verified") == size and not behind:
            behind = max(0, size - int(latest.get("day") or 0))
        return MirrorStatus("pending", behind, self._reason(size))

    def stop(self) -> None:
        """End the worker; a worker that is stuck in the share is killed and left behind."""
        self._stopped = True
        child, self._child = self._child, None
        if child is not None:
            child.stop(self.tuning.stop_s)
            self._dead.append(child.process)

    def _tell_order(self) -> None:
        if self._child is not None and self._order:
            self._child.send(b"%d" % self._order)

    def _start_child(self) -> None:
        self._runs_since = self._holding_since = None
        try:
            self._child = WorkerProcess(self._command)
        except OSError as error:
            self._problem = f"the mirror's process cannot be started: {error}"
            self._retry.failed(urgent=self._order > 0)
        self._tell_order()

    def _lose(self, child: WorkerProcess, problem: str) -> None:
        self._child = None
        child.close()
        self._problem = problem
        self._latest = {**self._latest, "state": "trouble", "order": 0, "blocked": False, "error": ""}
        self._retry.failed(urgent=self._order > 0)

    def _hear(self) -> None:
        child = self._child
        if child is None:
            return
        for report in child.take_reports():
            if self._runs_since is None:
                self._runs_since = child.heard_mono
            if "warn" in report:
                self.say("WARNING", f"Central mirror: {report['warn']}", LOGGER, True)
            elif "crash" in report:
                self._problem = f"the mirror's process failed: {report['crash'].strip().splitlines()[-1]}"
                self.say("ERROR", f"Central mirror: {report['crash']}", LOGGER, False)
            else:
                if not report.get("holding"):
                    self._holding_since = None
                elif self._holding_since is None:
                    self._holding_since = child.heard_mono
                if report["state"] in ("starting", "waiting"):
                    report = {**self._latest, "state": report["state"], "error": "", "order": 0}
                self._latest = report
                if report["state"] in _GOOD:
                    self._problem = ""
                    self._retry.succeeded()

    def _judge(self, now: float) -> None:
        """One warning when the share stops answering, one line when it is back; a slow start of the worker hides no cause."""
        child, tuning = self._child, self.tuning
        silent_s = 0.0 if child is None else now - child.heard_mono
        if child is not None and self._latest.get("state") in _GOOD and silent_s < tuning.warn_s:
            self._bad_since = None
            if self._warned:
                self._warned, self._last_back = "", now
                text = f"{self.job.mirror_directory} answers again; {self.status().bytes_behind} bytes to catch up"
                self.say("INFO", f"Central mirror: {text}", LOGGER, True)
            return
        if self._bad_since is None:
            self._bad_since = now - (silent_s if silent_s >= tuning.warn_s else 0.0)
        known = self._latest.get("error") or self._problem
        patience_s = tuning.warn_error_s if known else tuning.warn_s
        reason = known or self._silence()
        if now - self._last_back < tuning.flap_s or reason == _NOT_RUNNING:
            patience_s = max(patience_s, tuning.hang_s)
        if self._warned and (self._warned != _NOT_RUNNING or reason == _NOT_RUNNING):
            return
        # What is known of the share is told at once; its silence counts from when a worker ran that could hear it.
        since = self._bad_since if known and not self._warned else max(self._bad_since, self._runs_since or 0.0)
        if now - since < patience_s:
            return
        self._warned = reason
        text = (
            f"Central mirror: {self.job.mirror_directory} cannot be written ({reason}). The experiment goes on; the session "
            "log is complete on this PC and is copied when the share is back"
        )
        self.say("WARNING", text, LOGGER, True)

    def _reason(self, size: int) -> str:
        latest = self._latest
        if latest.get("error") or self._problem:
            return str(latest.get("error") or self._problem)
        if self._child is not None and time.monotonic() - self._child.heard_mono > self.tuning.warn_s:
            return self._silence()
        if latest.get("state") == "waiting":
            return "another process mirrors this session, or is stuck in the share"
        if self._child is not None and not latest.get("copied") and latest.get("state") not in _GOOD:
            return "the share has not answered yet"
        if latest.get("verified") == size:
            waits = "waits for another PC's lock" if latest.get("blocked") else "is not complete yet"
            return f"the session's own copy is verified; the day's log {waits}"
        return "not finished yet"

    def _silence(self) -> str:
        """Why nothing is heard: a worker reports once before it touches the share."""
        return "the share does not answer" if self._child is None or self._runs_since is not None else _NOT_RUNNING
