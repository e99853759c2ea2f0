"""Reports that wait on the rig's disk to be sent: whole before anybody tries, one sender at a time, hard deadlines.

``<state_directory>/outbox/*.json`` holds one report each. :func:`drain` runs in the sidecar, at the next session's start, or
by ``python -m pytest_openscope outbox send``. It talks to the server only through worker processes (:mod:`.workers`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..system import FileLock, make_private_folder, now_iso, write_json
from .ledger import Ledger
from .results import FINAL, result, write_back
from .settings import Timing
from .worker import postpone
from .workers import AttemptFailedError, Workers

OUTBOX = "outbox"
LOCK = ".lock"
#: A rig that fails without end while the server is away keeps the newest reports.
MAX_REPORTS = 200
#: With less time left no attempt is begun: importing PyGithub alone takes a good part of it.
MIN_ATTEMPT_S = 1.0
#: How often the outbox is looked at while nothing in it is due.
POLL_S = 0.5

Attempt = Callable[[Path, str, float], "dict[str, Any] | None"]
Written = Callable[[Path, "dict[str, Any]"], None]


def enqueue(state_directory: Path, report: dict[str, Any]) -> Path:
    """Put a report into the outbox, atomically and flushed to disk; return its file.

    A report that lies there already keeps its file, which says how far it came.

    Raises:
        OSError: the state directory cannot be written.
    """
    folder = Path(state_directory) / OUTBOX
    make_private_folder(Path(state_directory))
    make_private_folder(folder)
    there = _file_of(folder, report)
    if there is not None:
        return there
    path = folder / f"{_stamp(folder):021d}-{report['fingerprint'].replace(':', '_')}-{report['id']}.json"
    write_json(path, report, private=True)
    for old in sorted(folder.glob("*.json"))[:-MAX_REPORTS]:
        old.unlink(missing_ok=True)
    return path


def _stamp(folder: Path) -> int:
    """Return nanoseconds since the epoch, later than any in the folder: a clock may stand still meanwhile, or go back."""
    told = (path.name.partition("-")[0] for path in folder.glob("*.json"))
    return max([time.time_ns(), *(int(text.ljust(21, "0")) + 1 for text in told if text.isdecimal())])


def is_known(state_directory: Path, report: Mapping[str, Any]) -> bool:
    """Tell whether a report was put into the outbox before, be it waiting, sent or refused."""
    # In this order: the ledger knows a report before its file is removed.
    if _file_of(Path(state_directory) / OUTBOX, report) is not None:
        return True
    return Ledger(state_directory).knows(str(report["id"]))


def _file_of(folder: Path, report: Mapping[str, Any]) -> Path | None:
    return next(iter(folder.glob(f"*-{report['id']}.json")), None)


def list_reports(state_directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the waiting reports, oldest first; a damaged file is set aside under another name."""
    found = []
    for path in sorted((Path(state_directory) / OUTBOX).glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            report["state"], report["settings"], report["fingerprint"], report["id"]
        except FileNotFoundError:
            continue
        except OSError:
            continue
        except (ValueError, KeyError, TypeError):
            path.rename(path.with_suffix(".damaged"))
            continue
        found.append((path, report))
    return found


def waiting(state_directory: Path) -> bool:
    """Tell cheaply whether anything lies in the outbox."""
    try:
        with os.scandir(Path(state_directory) / OUTBOX) as entries:
            return any(entry.name.endswith(".json") and not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False


@dataclass(frozen=True)
class Drained:
    """What a :func:`drain` left: reports still waiting, and when (epoch seconds) the next one is due, if any is.

    ``busy`` tells that another process was sending.
    """

    left: int = 0
    next_due: float | None = None
    busy: bool = False


@dataclass(frozen=True)
class Clock:
    """Time as :func:`drain` sees it; tests bring their own."""

    now: Callable[[], float] = time.time
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
    lock = FileLock(Path(state_directory) / OUTBOX / LOCK)
    while not lock.acquire():
        if clock.now() >= deadline or halted():
            return Drained(len(list_reports(state_directory)), None, True)
        clock.sleep(POLL_S)
    workers = None if attempt else Workers(state_directory, timing, halted)
    try:
        tell = _Teller(on_result, on_written)
        run = _Run(state_directory, timing, clock, token_of, tell, attempt or workers)  # type: ignore[arg-type]
        if at_once:
            run.hurried = {report["id"] for _, report in list_reports(state_directory) if not report["state"].get("number")}
        run.until(deadline, halted)
    finally:
        if workers is not None:
            workers.close()
        lock.release()
    left = [_due(report, Ledger(state_directory)) for _, report in list_reports(state_directory)]
    return Drained(len(left), min(left, default=None))


def _due(report: Mapping[str, Any], ledger: Ledger) -> float:
    base = str(report["settings"].get("api_base_url") or "")
    return max(float(report["state"].get("next_try") or 0.0), ledger.not_before(base))


@dataclass(frozen=True)
class _Teller:
    """Gives an answer to the session that it is for, and to whoever wants to know."""

    on_result: Callable[[dict[str, Any]], None] | None
    on_written: Written | None

    def __call__(self, report: Mapping[str, Any], answer: dict[str, Any]) -> None:
        path = Path(report["debug_state"])
        if write_back(path, answer) and self.on_written is not None:
            self.on_written(path, answer)
        if self.on_result is not None:
            self.on_result(answer)


class _Run:
    """One drain: picks the report that is due first, and deals with answers."""

    def __init__(
        self,
        state_directory: Path,
        timing: Timing,
        clock: Clock,
        token_of: Callable[[str], str | None],
        tell: _Teller,
        attempt: Attempt,
    ) -> None:
        self.state_directory = Path(state_directory)
        self.timing = timing
        self.clock = clock
        self.token_of = token_of
        self.tell = tell
        self.attempt = attempt
        self.tokenless: set[str] = set()
        self.hurried: set[str] = set()

    def until(self, deadline: float, halted: Callable[[], bool]) -> None:
        while not halted():
            ledger = Ledger(self.state_directory)
            reports = [item for item in list_reports(self.state_directory) if item[1]["id"] not in self.tokenless]
            if not reports:
                return
            path, report = min(reports, key=lambda item: (self._due(item[1], ledger), item[0].name))
            now = self.clock.now()
            wait_s = self._due(report, ledger) - now
            if wait_s > 0:
                if now + wait_s > deadline:
                    return
                self.clock.sleep(min(wait_s, POLL_S))
                continue
            remaining_s = deadline - now
            if remaining_s < MIN_ATTEMPT_S:
                return
            self.hurried.discard(report["id"])
            wanted_s = float(report["settings"].get("timeout_s") or self.timing.attempt_s)
            self._one(path, report, ledger, min(wanted_s, self.timing.attempt_s, remaining_s))

    def _due(self, report: Mapping[str, Any], ledger: Ledger) -> float:
        if report["id"] in self.hurried:
            return ledger.not_before(str(report["settings"].get("api_base_url") or ""))
        return _due(report, ledger)

    def _one(self, path: Path, report: dict[str, Any], ledger: Ledger, limit_s: float) -> None:
        token = (self.token_of(str(report["settings"].get("token_env") or "")) or "").strip()
        if not token:
            self.tokenless.add(report["id"])
            self.tell(report, result(report, "queued", reason=f"no token in {report['settings'].get('token_env')}"))
            return
        if self._too_old(report):
            answer = result(report, "refused", reason="it could not be sent for too long")
            ledger.refused(answer, now_iso())
            ledger.remember(report["id"])
            ledger.save()
            path.unlink(missing_ok=True)
            self.tell(report, answer)
            return
        try:
            answer_or_none = self.attempt(path, token, limit_s)
        except AttemptFailedError as problem:
            answer_or_none = self._failed(path, str(problem))
        if answer_or_none is not None:
            self.tell(report, answer_or_none)

    def _too_old(self, report: Mapping[str, Any]) -> bool:
        try:
            queued = datetime.fromisoformat(str(report["state"].get("queued_at"))).timestamp()
        except ValueError:
            return False
        return self.clock.now() - queued > self.timing.give_up_s

    def _failed(self, path: Path, reason: str) -> dict[str, Any] | None:
        """Postpone a report whose worker is dead; the file on disk says how far it came."""
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        postpone(report, self.timing, self.clock.now())
        report["state"]["reason"] = reason
        write_json(path, report)
        return None if report["state"].get("number") else result(report, "queued", reason=reason)


def drop(state_directory: Path, wanted: str) -> list[dict[str, Any]]:
    """Remove the reports whose id or fingerprint begins with ``wanted`` (``all`` for every one), and tell their sessions.

    Raises:
        TimeoutError: another process is sending.
    """
    lock = FileLock(Path(state_directory) / OUTBOX / LOCK)
    if not lock.acquire(5.0):
        raise TimeoutError("another process is sending the outbox")
    dropped = []
    with lock:
        ledger = Ledger(state_directory)
        for path, report in list_reports(state_directory):
            if wanted == "all" or report["id"].startswith(wanted) or report["fingerprint"].startswith(wanted):
                ledger.remember(report["id"])
                ledger.save()
                path.unlink(missing_ok=True)
                if not report["state"].get("number"):
                    write_back(Path(report["debug_state"]), result(report, "refused", reason="dropped by hand"))
                dropped.append(report)
    return dropped


__all__ = ["FINAL", "Clock", "Drained", "Workers", "drain", "drop", "enqueue", "is_known", "list_reports", "waiting"]
