"""One attempt for one report, in a process that can be killed: PyGithub's timeout is per socket operation, so a server that
drips bytes holds a call for ever.

Run by :mod:`.outbox` with jobs as JSON lines on stdin, the token among them (never on a command line, never on disk); answers
as JSON lines on stdout. The parent holds the outbox lock meanwhile.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..config import GithubIssueSettings
from ..system import write_json
from .client import Api, LimitedError, RefusedError, TransientError
from .ledger import Ledger
from .results import keep_copy, result
from .send import Sender
from .settings import Timing
from .settle import Settler


def attempt(
    path: Path,
    state_directory: Path,
    token: str,
    timing: Timing,
    now: Callable[[], float] = time.time,
    apis: dict[tuple[str, str], Api] | None = None,
) -> dict[str, Any] | None:
    """Do what is due for the report in ``path``; return the answer for its session, if there is a new one.

    The report's file is changed, or removed when the report is done with.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    ledger = Ledger(state_directory)
    settings = GithubIssueSettings.of(report["settings"])
    state = report["state"]
    try:
        api = _api(settings, token, timing, now, apis)
        answer, done = _advance(report, (api, ledger, timing, now, lambda changed: write_json(path, changed), _keep, token))
        state["attempts"] = 0
    except LimitedError as problem:
        until = now() + problem.wait_s
        ledger.delay(settings.api_base_url, until)
        state["next_try"] = until
        answer, done = _queued(report, f"the server asks to wait: {problem}"), False
    except TransientError as problem:
        answer, done = _transient(report, str(problem), timing, now()), False
        if problem.wait_s:
            ledger.delay(settings.api_base_url, now() + problem.wait_s)
    except RefusedError as problem:
        answer, done = (None, True) if state.get("number") else (result(report, "refused", reason=str(problem)), True)
        if answer is not None:
            ledger.refused(answer, report["occurred_at"])
    ledger.save()
    if done:
        path.unlink(missing_ok=True)
    else:
        write_json(path, report)
    return answer


def _advance(report: dict[str, Any], means: tuple[Any, ...]) -> tuple[dict[str, Any] | None, bool]:
    if report["state"].get("number"):
        return Settler(*means).settle(report)
    answer = Sender(*means).send(report)
    return answer, not report["state"].get("number")


def _api(
    settings: GithubIssueSettings, token: str, timing: Timing, now: Callable[[], float], apis: dict[tuple[str, str], Api] | None
) -> Api:
    key = (settings.api_base_url, settings.repo)
    known = (apis or {}).get(key)
    if known is not None:
        return known
    api = Api(settings.api_base_url, settings.repo, token, timing, now)
    if apis is not None:
        apis[key] = api
    return api


def _keep(report: dict[str, Any], title: str, text: str) -> None:
    keep_copy(Path(report["sent_copy"]), title, text)


def _transient(report: dict[str, Any], reason: str, timing: Timing, now: float) -> dict[str, Any] | None:
    postpone(report, timing, now)
    return _queued(report, reason)


def postpone(report: dict[str, Any], timing: Timing, now: float) -> None:
    """Set when a report is tried again after a passing fault."""
    state = report["state"]
    state["next_try"] = now + timing.backoff_s(int(state.get("attempts") or 0))
    state["attempts"] = int(state.get("attempts") or 0) + 1


def _queued(report: dict[str, Any], reason: str) -> dict[str, Any] | None:
    """A report that has its issue already, and only settles, has nothing new to tell."""
    report["state"]["reason"] = reason
    return None if report["state"].get("number") else result(report, "queued", reason=reason)


def main() -> None:
    """Serve jobs until stdin ends.

    It ends when the parent is gone, and with it the outbox lock: the process then ends at once, even within a request, before
    the next sender could find it writing to the same report. What was under way is looked up, as after a killed attempt.
    """
    apis: dict[tuple[str, str], Api] = {}
    for line in _lines_until_the_parent_is_gone():
        job = json.loads(line)
        watchdog = threading.Timer(job["limit_s"] + 2.0, os._exit, (3,))
        watchdog.daemon = True
        watchdog.start()
        try:
            reply = _serve(job, apis)
        except Exception:
            # The parent learns of it and postpones the report; nothing else may be lost for it.
            reply = {"problem": traceback.format_exc(limit=-3)[-1500:]}
        watchdog.cancel()
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def _lines_until_the_parent_is_gone() -> Iterator[str]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while True:
        yield lines.get()


def _serve(job: dict[str, Any], apis: dict[tuple[str, str], Api]) -> dict[str, Any]:
    timing = Timing.from_mapping(job["timing"])
    if job["do"] == "check":
        from .access import look

        return {"findings": look(GithubIssueSettings.of(job["settings"]), job["token"], timing)}
    return {"answer": attempt(Path(job["path"]), Path(job["state_directory"]), job["token"], timing, time.time, apis)}
