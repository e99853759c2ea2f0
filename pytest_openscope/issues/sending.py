"""Sends what waits in the outbox: one sender at a time, hard deadlines.

:func:`drain` runs in the sidecar, at the next session's start, or by ``openscope outbox send``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..system import now_iso, read_json, write_json
from .client import Timing
from .outbox import Ledger, due, list_reports, lock_of, postpone, remove, result, waiting, write_back
from .worker import AttemptFailedError, Worker

#: With less time left no attempt is begun: importing PyGithub alone takes a good part of it.
MIN_ATTEMPT_S = 1.0
#: How often the outbox is looked at while nothing in it is due.
POLL_S = 0.5

Attempt = Callable[[Path, str, float], "dict[str, Any] | None"]
Written = Callable[[Path, "dict[str, Any]"], None]


@dataclass(frozen=True)
class Drained:
    """What a :func:`drain` left: reports still waiting, and when (epoch seconds) the next one is due, if any is.

    ``busy`` tells that another process was sending.
    """

    left: int = 0
    next_due: float | None = None
    busy: bool = False


def _steady_clock() -> Callable[[], float]:
    """Return a clock that tells seconds since the epoch, and goes on evenly whatever happens to the computer's meanwhile."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


@dataclass(frozen=True)
class Clock:
    """Time as :func:`drain` sees it; tests bring their own."""

    now: Callable[[], float] = field(default_factory=_steady_clock)
    sleep: Callable[[float], None] = time.sleep


def drain(
    state_directory: Path,
    deadline_s: float,
    token_of: Callable[[str], str | None] = os.environ.get,
    on_result: Callable[[dict[str, Any]], None] | None = None,
    *,
    timing: Timing | None = None,
    stop: Callable[[], bool] | None = None,
    attempt: Attempt | None = None,
    clock: Clock | None = None,
    on_written: Written | None = None,
    at_once: bool = False,
) -> Drained:
    """Send what is due, and what becomes due, until the outbox is empty or ``deadline_s`` is over.

    Every answer is written into its session's ``debug_state.json`` and given to ``on_result``. Never raises for what a server
    or a single report does; a second process that drains the same outbox finds the lock taken and waits for its turn.

    Args:
        token_of: returns the content of an environment variable; asked anew for every attempt.
        stop: asked often; True ends the drain early, an attempt under way is killed.
        attempt: what an attempt is, for tests; the default is a worker process.
        on_written: gets each ``debug_state.json`` that was changed, and the answer that is in it now.
        at_once: try each report without an issue once, however long it would still wait after the attempts before; a server
            that asked to wait is given its time.
    """
    timing, clock = timing or Timing(), clock or Clock()
    if not waiting(state_directory):
        return Drained()
    deadline = clock.now() + deadline_s
    halted = stop or (lambda: False)
    lock = lock_of(state_directory)
    while not lock.acquire():
        if clock.now() >= deadline or halted():
            return Drained(len(list_reports(state_directory)), None, True)
        clock.sleep(POLL_S)
    with lock, closing(Worker(timing, halted)) as worker:

        def attempt_in_worker(path: Path, token: str, limit_s: float) -> dict[str, Any] | None:
            job = {"do": "attempt", "path": str(path), "state_directory": str(state_directory)}
            answer = worker.ask(job, token, limit_s)
            return answer if isinstance(answer, dict) else None

        run = _Run(state_directory, timing, clock, token_of, attempt or attempt_in_worker, on_result, on_written)
        if at_once:
            run.hurried = {report["id"] for _, report in list_reports(state_directory) if not report["state"].get("number")}
        run.until(deadline, halted)
    left = [due(report, Ledger(state_directory)) for _, report in list_reports(state_directory)]
    return Drained(len(left), min(left, default=None))


@dataclass
class _Run:
    """One drain: picks the report that is due first, and tells its session the answer."""

    state_directory: Path
    timing: Timing
    clock: Clock
    token_of: Callable[[str], str | None]
    attempt: Attempt
    on_result: Callable[[dict[str, Any]], None] | None
    on_written: Written | None
    tokenless: set[str] = field(default_factory=set)
    hurried: set[str] = field(default_factory=set)

    def until(self, deadline: float, halted: Callable[[], bool]) -> None:
        while not halted():
            ledger = Ledger(self.state_directory)
            reports = [item for item in list_reports(self.state_directory) if item[1]["id"] not in self.tokenless]
            if not reports:
                return
            path, report = min(reports, key=lambda item: (self._due(item[1], ledger), item[0].name))
            now = self.clock.now()
            wait_s = self._due(report, ledger) - now
            # Nothing is put off for longer: the clock was set back since.
            if 0 < wait_s <= self.timing.max_delay_s:
                if now + wait_s > deadline:
                    return
                self.clock.sleep(min(wait_s, POLL_S))
                continue
            remaining_s = deadline - now
            if remaining_s < MIN_ATTEMPT_S:
                return
            self.hurried.discard(report["id"])
            wanted_s = float(report["settings"].get("timeout_s") or self.timing.attempt_s)
            answer = self._send(path, report, ledger, min(wanted_s, self.timing.attempt_s, remaining_s))
            if answer is not None:
                self._tell(Path(report["debug_state"]), answer)

    def _due(self, report: Mapping[str, Any], ledger: Ledger) -> float:
        return due({**report, "state": {}} if report["id"] in self.hurried else report, ledger)

    def _send(self, path: Path, report: dict[str, Any], ledger: Ledger, limit_s: float) -> dict[str, Any] | None:
        variable = report["settings"].get("token_env")
        token = (self.token_of(str(variable or "")) or "").strip()
        if not token:
            self.tokenless.add(report["id"])
            return result(report, "queued", reason=f"no token in {variable}")
        if self._too_old(report):
            answer = result(report, "refused", reason="it could not be sent for too long")
            ledger.refused(answer, now_iso())
            remove(path, report, ledger)
            return answer
        try:
            return self.attempt(path, token, limit_s)
        except AttemptFailedError as problem:
            reason = str(problem)
        # The file on disk says how far the dead worker came.
        current = read_json(path)
        if current is None:
            return None
        queued = postpone(current, reason, self.timing, self.clock.now())
        write_json(path, current)
        return queued

    def _too_old(self, report: Mapping[str, Any]) -> bool:
        """Tell whether a report has waited for too long and was tried often; its age alone may come of a clock that was set."""
        if int(report["state"].get("attempts") or 0) < self.timing.give_up_attempts:
            return False
        try:
            queued = datetime.fromisoformat(str(report["state"].get("queued_at"))).timestamp()
        except ValueError:
            return False
        return self.clock.now() - queued > self.timing.give_up_s

    def _tell(self, path: Path, answer: dict[str, Any]) -> None:
        if write_back(path, answer) and self.on_written is not None:
            self.on_written(path, answer)
        if self.on_result is not None:
            self.on_result(answer)
