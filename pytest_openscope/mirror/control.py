"""Supervises the mirror's worker from the sidecar's loop. Nothing here touches the share or waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from ..system import light_command, lines_of, spawn_detached
from .files import MirrorJob, Retry

_WORKER = "pytest_openscope.mirror.worker"
_GOOD = ("following", "verified")
_NOT_RUNNING = "the mirror's process is not running yet"


@dataclass(frozen=True)
class Notice:
    """Something for the session log, and for the terminal if ``terminal``."""

    level: str
    text: str
    terminal: bool = True


@dataclass(frozen=True)
class MirrorStatus:
    """``verified`` (length and SHA-256 equal, every line in the day's log), ``pending`` with the reason, or ``off``."""

    status: str
    bytes_behind: int = 0
    reason: str = ""

    @property
    def settled(self) -> bool:
        """True when there is nothing left to do."""
        return self.status != "pending"


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


class _Child:
    """One worker process; its reports are collected by a thread, since pipes cannot be polled on Windows."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = spawn_detached(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.reports: deque[tuple[float, dict[str, Any]]] = deque()
        self.heard_mono = time.monotonic()
        #: It has reported at least once.
        self.runs = False
        self.holding_since: float | None = None
        self._in = self.process.stdin.fileno()
        start_new_thread(self._listen, (self.process.stdout.fileno(),))

    def _listen(self, fd: int) -> None:
        # A worker that is killed may leave half a report.
        with contextlib.suppress(OSError, ValueError):
            for line in lines_of(fd):
                self.reports.append((time.monotonic(), json.loads(line)))

    def send(self, order: int) -> None:
        with contextlib.suppress(OSError):
            os.write(self._in, b"%d\n" % order)

    def close(self) -> None:
        """Say goodbye: the end of its stdin ends the worker."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class MirrorSupervisor:
    """Keeps one worker at the mirror of one session.

    ``tick`` is called about every 0.2 s and returns what the operator should know. A worker that gives no sign of life for
    ``hang_s`` is killed and never waited for; the next one waits for its local lock.
    """

    def __init__(self, job: MirrorJob, tuning: MirrorTuning | None = None, worker_command: Sequence[str] | None = None):
        self.job = job
        self.tuning = tuning or MirrorTuning()
        self._command = [*(worker_command or light_command(_WORKER, [])), job.to_json()]
        self._child: _Child | None = None
        self._dead: list[Popen[bytes]] = []
        self._retry = Retry(self.tuning.retry_first_s, self.tuning.retry_most_s)
        self._latest: dict[str, Any] = {}
        self._order = 0
        self._stopped = True
        self._last_tick = time.monotonic()
        self._bad_since: float | None = None
        # What the operator was told of a share that cannot be written, and since when a worker runs.
        self._warned = ""
        self._runs_since = 0.0
        self._last_back = -1e9
        self._problem = ""

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

    def start(self) -> None:
        """Begin to mirror; does nothing when the mirror is off."""
        self._stopped = self.job.mirror_directory is None
        self._last_tick = time.monotonic()
        if not self._stopped:
            self._start_child()

    def finish_soon(self) -> None:
        """The session log is complete: copy the rest and the metadata files, then verify."""
        self._give_order()

    def refresh_metadata(self) -> None:
        """Copy the metadata files again (``end_state.json`` with the mirror's status); only after :meth:`finish_soon`."""
        self._give_order()

    def tick(self) -> list[Notice]:
        """Read the worker's reports, replace a hung or dead worker, and return what should be said."""
        now = time.monotonic()
        if self._stopped:
            return []
        pause_s, self._last_tick = now - self._last_tick, now
        self._dead = [process for process in self._dead if process.poll() is None]
        notices = self._hear()
        child = self._child
        if child is None:
            if now >= self._retry.due_mono:
                self._start_child()
        elif child.process.poll() is not None and not child.reports:
            self._lose(child, now, self._problem or "the mirror's process ended")
        else:
            if pause_s > 2.0:
                child.heard_mono += pause_s
            holding_s = 0.0 if child.holding_since is None else now - child.holding_since
            patience_s = self.tuning.hang_s if child.runs else max(self.tuning.start_s, self.tuning.hang_s)
            if now - child.heard_mono > patience_s or holding_s > self.tuning.hang_s:
                child.process.kill()
                self._dead.append(child.process)
                self._lose(child, now, _silence(child))
        return notices + self._judge(now)

    def status(self) -> MirrorStatus:
        """Return where the mirror stands, from the last reports and the session log's length."""
        if self.job.mirror_directory is None:
            return MirrorStatus("off")
        try:
            size = Path(self.job.log_path).stat().st_size
        except FileNotFoundError:
            return MirrorStatus("pending", 0, "the session log is missing")
        except OSError:
            size = 0
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
        if child is None:
            return
        child.close()
        deadline = time.monotonic() + self.tuning.stop_s
        while child.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if child.process.poll() is None:
            child.process.kill()
            self._dead.append(child.process)
        for process in self._dead:
            process.poll()

    def _give_order(self) -> None:
        self._order += 1
        self._retry.soon()
        if self._child is not None:
            self._child.send(self._order)

    def _start_child(self) -> None:
        try:
            self._child = _Child(self._command)
        except OSError as error:
            self._problem = f"the mirror's process cannot be started: {error}"
            self._retry.failed(time.monotonic(), urgent=self._order > 0)
            return
        if self._order:
            self._child.send(self._order)

    def _lose(self, child: _Child, now: float, problem: str) -> None:
        self._child = None
        child.close()
        self._problem = problem
        self._latest = {**self._latest, "state": "trouble", "order": 0, "blocked": False, "error": ""}
        self._retry.failed(now, urgent=self._order > 0)

    def _hear(self) -> list[Notice]:
        notices: list[Notice] = []
        child = self._child
        while child is not None and child.reports:
            child.heard_mono, report = child.reports.popleft()
            if not child.runs:
                child.runs, self._runs_since = True, child.heard_mono
            if "warn" in report:
                notices.append(Notice("WARNING", f"Central mirror: {report['warn']}"))
            elif "crash" in report:
                self._problem = f"the mirror's process failed: {report['crash'].strip().splitlines()[-1]}"
                notices.append(Notice("ERROR", f"Central mirror: {report['crash']}", terminal=False))
            elif "state" in report:
                if not report.get("holding"):
                    child.holding_since = None
                elif child.holding_since is None:
                    child.holding_since = child.heard_mono
                if report["state"] in ("starting", "waiting"):
                    report = {**self._latest, "state": report["state"], "error": "", "order": 0}
                self._latest = report
                if report["state"] in _GOOD:
                    self._problem = ""
                    self._retry.succeeded()
        return notices

    def _judge(self, now: float) -> list[Notice]:
        """One warning when the share stops answering, one line when it is back; a slow start of the worker hides no cause."""
        child = self._child
        silent_s = 0.0 if child is None else now - child.heard_mono
        good = child is not None and self._latest.get("state") in _GOOD and silent_s < self.tuning.warn_s
        if good and not self._warned:
            self._bad_since = None
            return []
        if good:
            self._bad_since, self._warned, self._last_back = None, "", now
            behind = self.status().bytes_behind
            return [Notice("INFO", f"Central mirror: {self.job.mirror_directory} answers again; {behind} bytes to catch up")]
        if self._bad_since is None:
            self._bad_since = now - (silent_s if silent_s >= self.tuning.warn_s else 0.0)
        known = self._latest.get("error") or self._problem
        patience_s = self.tuning.warn_error_s if known else self.tuning.warn_s
        reason = known or _silence(child)
        if now - self._last_back < self.tuning.flap_s or reason == _NOT_RUNNING:
            patience_s = max(patience_s, self.tuning.hang_s)
        if self._warned and (self._warned != _NOT_RUNNING or reason == _NOT_RUNNING):
            return []
        # What is known of the share is told at once; its silence counts from when a worker ran that could hear it.
        since = self._bad_since if known and not self._warned else max(self._bad_since, self._runs_since)
        if now - since < patience_s:
            return []
        self._warned = reason
        text = (
            f"Central mirror: {self.job.mirror_directory} cannot be written ({reason}). The experiment goes on; the session "
            "log is complete on this PC and is copied when the share is back"
        )
        return [Notice("WARNING", text)]

    def _reason(self, size: int) -> str:
        latest = self._latest
        if latest.get("error") or self._problem:
            return str(latest.get("error") or self._problem)
        if self._child is not None and time.monotonic() - self._child.heard_mono > self.tuning.warn_s:
            return _silence(self._child)
        if latest.get("state") == "waiting":
            return "another process mirrors this session, or is stuck in the share"
        if self._child is not None and not latest.get("copied") and latest.get("state") not in _GOOD:
            return "the share has not answered yet"
        if latest.get("verified") == size:
            waits = "waits for another PC's lock" if latest.get("blocked") else "is not complete yet"
            return f"the session's own copy is verified; the day's log {waits}"
        return "not finished yet"


def _silence(child: _Child | None) -> str:
    """Why nothing is heard: a worker reports once before it touches the share."""
    return "the share does not answer" if child is None or child.runs else _NOT_RUNNING
