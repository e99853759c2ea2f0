"""Sends what waits in the outbox: one sender at a time, hard deadlines.

:func:`drain` runs in the sidecar, at the next session's start, or by ``openscope outbox send``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..config import GithubIssueSettings
from ..system import UnansweredError, now_iso, read_json, write_json
from .client import MAX_DELAY_S, Timing
from .outbox import Ledger, due, list_reports, lock_of, postpone, remove, result, waiting, write_back
from .worker import ask_server

#: With less time left no attempt is begun: starting its process alone takes a good part of it.
MIN_ATTEMPT_S = 1.0
#: How often the outbox is looked at while nothing in it is due.
POLL_S = 0.5
#: A report is dropped when it is so old and was tried so often; its age alone may come of a clock that was set.
GIVE_UP_S, GIVE_UP_ATTEMPTS = 30 * 24 * 3600.0, 8

#: Gets a report's file, its settings, the token and how long it may take; returns the answer for the session.
Attempt = Callable[[Path, GithubIssueSettings, str, float], "dict[str, Any] | None"]


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


def drain(
    state_directory: Path,
    deadline_s: float,
    token_of: Callable[[str], str | None] = os.environ.get,
    on_result: Callable[[dict[str, Any]], None] = lambda answer: None,
    *,
    timing: Timing | None = None,
    attempt: Attempt | None = None,
    now: Callable[[], float] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    on_written: Callable[[Path, dict[str, Any]], None] = lambda path, answer: None,
    at_once: bool = False,
) -> Drained:
    """Send what is due, and what becomes due, until the outbox is empty or ``deadline_s`` is over.

    Every answer is written into its session's ``debug_state.json`` and given to ``on_result``. Never raises for what a server
    or a single report does; a second process that drains the same outbox finds the lock taken and waits for its turn.

    Args:
        token_of: returns the content of an environment variable; asked anew for every attempt.
        attempt: what an attempt is, for tests, as ``now`` and ``sleep`` are; the default is a worker process.
        on_written: gets each ``debug_state.json`` that was changed, and the answer that is in it now.
        at_once: try each report without an issue now, however long it would still wait after the attempts before; a server
            that asked to wait is given its time.
    """
    if not waiting(state_directory):
        return Drained()
    timing, now = timing or Timing(), now or _steady_clock()

    def attempt_in_worker(path: Path, settings: GithubIssueSettings, token: str, limit_s: float) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = ask_server(settings, token, timing, limit_s, path)
        return answer

    deadline, without_token = now() + deadline_s, set[str]()
    lock = lock_of(state_directory)
    if not lock.acquire(deadline_s):
        return Drained(len(list_reports(state_directory)), busy=True)
    with lock:
        if at_once:
            _forget_delays(state_directory)
        while True:
            ledger = Ledger(state_directory)
            reports = [item for item in list_reports(state_directory) if item[1]["id"] not in without_token]
            if not reports:
                break
            path, report = min(reports, key=lambda item: (due(item[1], ledger), item[0].name))
            wait_s, remaining_s = due(report, ledger) - now(), deadline - now()
            # Nothing is put off for longer: the clock was set back since.
            if 0 < wait_s <= MAX_DELAY_S:
                if wait_s > remaining_s:
                    break
                sleep(min(wait_s, POLL_S))
                continue
            if remaining_s < MIN_ATTEMPT_S:
                break
            settings = GithubIssueSettings.of(report["settings"])
            token = (token_of(settings.token_env) or "").strip()
            if not token:
                without_token.add(report["id"])
                answer: dict[str, Any] | None = result(report, "queued", reason=f"no token in {settings.token_env}")
            elif report["state"]["attempts"] >= GIVE_UP_ATTEMPTS and _age_s(report, now()) > GIVE_UP_S:
                answer = result(report, "refused", reason="it could not be sent for too long")
                ledger.refused(answer, now_iso())
                remove(path, report, ledger)
            else:
                try:
                    limit_s = min(settings.timeout_s, remaining_s)
                    answer = (attempt or attempt_in_worker)(path, settings, token, limit_s)
                except (UnansweredError, OSError) as problem:
                    answer = _postpone_on_disk(path, str(problem), timing, now())
            if answer is not None:
                if write_back(Path(report["debug_state"]), answer):
                    on_written(Path(report["debug_state"]), answer)
                on_result(answer)
    left = [due(report, Ledger(state_directory)) for _, report in list_reports(state_directory)]
    return Drained(len(left), min(left, default=None))


def _forget_delays(state_directory: Path) -> None:
    for path, report in list_reports(state_directory):
        if not report["state"].get("number"):
            report["state"]["next_try"] = 0.0
            write_json(path, report)


def _age_s(report: Mapping[str, Any], now: float) -> float:
    return now - datetime.fromisoformat(report["state"]["queued_at"]).timestamp()


def _postpone_on_disk(path: Path, reason: str, timing: Timing, now: float) -> dict[str, Any] | None:
    """Put off a report whose worker died; the file on disk says how far that came."""
    report = read_json(path)
    if report is None:
        return None
    answer = postpone(report, reason, timing, now)
    write_json(path, report)
    return answer
