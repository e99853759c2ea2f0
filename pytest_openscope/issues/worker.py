"""Asks the server in a process that can be killed: PyGithub's timeout is per socket operation, so a server that drips bytes
holds a call for ever.

The process gets jobs as JSON lines on stdin, the token among them (never on a command line, never on disk), and answers as JSON
lines on stdout. Its parent holds the outbox lock meanwhile.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import GithubIssueSettings
from ..system import remove_file, write_json
from .client import Api, GoneError, LimitedError, RefusedError, Timing, TransientError, shortened
from .outbox import Ledger, postpone, result
from .tracker import Tracker

#: Levels of a finding, from good to bad; ``error`` means that no report would arrive.
OK, WARNING, ERROR = "ok", "warning", "error"

#: What the process runs: nothing of the user's site is read before it has its path.
BOOT = (
    "import sys,json;j=json.loads(sys.stdin.readline());sys.path[:]=j['sys_path'];"
    "from pytest_openscope.issues.worker import main;main()"
)


class AttemptFailedError(Exception):
    """The process died, was killed at the deadline, or met a fault of its own."""


class Worker:
    """Gives jobs to a process, a new one whenever the last one was killed."""

    def __init__(self, timing: Timing, halted: Callable[[], bool] = lambda: False) -> None:
        self.timing = timing
        self.halted = halted
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._token = ""

    def ask(self, job: Mapping[str, Any], token: str, limit_s: float) -> Any:
        """Give a job to the process and return its reply.

        Raises:
            AttemptFailedError: no reply within ``limit_s``; the process is dead then.
        """
        if self._token != token:
            self.close()
        try:
            process = self._process or self._start()
            self._token = token
            _write(process, {**job, "token": token, "limit_s": limit_s, "timing": asdict(self.timing)})
            reply = json.loads(self._read(limit_s))
            if "problem" in reply:
                said = shortened(str(reply["problem"]).strip().splitlines()[-1], 300)
                raise AttemptFailedError(f"the sending process failed: {said}")
            return reply["reply"]
        except (OSError, ValueError) as problem:
            self.close()
            raise AttemptFailedError(f"the sending process died ({type(problem).__name__})") from problem
        except AttemptFailedError:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        flags, executable = 0, sys.executable
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW
            # A virtual environment's python.exe only starts this one and waits: a kill would hit the wrong process.
            executable = getattr(sys, "_base_executable", None) or executable
        self._process = process = subprocess.Popen(
            [executable, "-I", "-S", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=flags,
            start_new_session=sys.platform != "win32",
        )
        lines = self._lines = queue.Queue[bytes]()

        def pump() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(b"")

        threading.Thread(target=pump, daemon=True).start()
        package = str(Path(__file__).resolve().parents[2])
        _write(process, {"sys_path": [package, *[entry for entry in sys.path if entry and entry != package]]})
        return process

    def _read(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self.halted():
                raise AttemptFailedError("stopped")
            try:
                line = self._lines.get(timeout=min(left_s, 0.2))
            except queue.Empty:
                continue
            if not line:
                raise AttemptFailedError("the sending process died")
            return line
        raise AttemptFailedError(f"no answer within {limit_s:.0f} s")

    def close(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        process.wait()


def _write(process: subprocess.Popen[bytes], value: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value).encode() + b"\n")
    process.stdin.flush()


# -- in the process


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
            reply = {"reply": _serve(job, apis)}
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


def _serve(job: dict[str, Any], apis: dict[tuple[str, str], Api]) -> Any:
    timing = Timing(**job["timing"])
    if job["do"] == "check":
        return look(GithubIssueSettings.of(job["settings"]), job["token"], timing)
    return attempt(Path(job["path"]), Path(job["state_directory"]), job["token"], timing, apis)


def attempt(
    path: Path,
    state_directory: Path,
    token: str,
    timing: Timing,
    apis: dict[tuple[str, str], Api],
    now: Callable[[], float] = time.time,
) -> dict[str, Any] | None:
    """Do what is due for the report in ``path``; return the answer for its session, if there is a new one.

    The report's file is changed, or removed when the report is done with. ``apis`` are those that were used before.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    ledger = Ledger(state_directory)
    settings = GithubIssueSettings.of(report["settings"])
    answer, done = None, False
    try:
        key = (settings.api_base_url, settings.repo)
        if key not in apis:
            apis[key] = Api(*key, token, timing, now)
        answer, done = Tracker(apis[key], ledger, report, timing, lambda: write_json(path, report), token, now).advance()
        report["state"]["attempts"] = 0
    except RefusedError as problem:
        done = True
        if not report["state"].get("number"):
            answer = result(report, "refused", reason=str(problem))
            ledger.refused(answer, report["occurred_at"])
    except LimitedError as problem:
        ledger.delay(settings.api_base_url, now() + problem.wait_s)
        answer = postpone(report, f"the server asks to wait: {problem}", timing, now(), problem.wait_s)
    except TransientError as problem:
        if problem.wait_s:
            ledger.delay(settings.api_base_url, now() + problem.wait_s)
        answer = postpone(report, str(problem), timing, now())
    ledger.save()
    if done:
        remove_file(path)
    else:
        write_json(path, report)
    return answer


# -- are token, repository, permission and labels right?


def check_access(
    settings: GithubIssueSettings | Mapping[str, Any], token: str, *, limit_s: float = 30.0, timing: Timing | None = None
) -> list[dict[str, str]]:
    """Return findings ``{"level", "what", "text"}``; nothing is created. Takes at most ``limit_s``, whatever happens."""
    settings = GithubIssueSettings.of(settings)
    if not settings.repo:
        return [_finding(ERROR, "repository", "no repository is configured -> set github_issue.repo to owner/name")]
    if not token.strip():
        text = f"the environment variable {settings.token_env} holds no token -> set it on this machine"
        return [_finding(ERROR, "token", text)]
    with closing(Worker(timing or Timing())) as worker:
        try:
            return list(worker.ask({"do": "check", "settings": settings.as_json()}, token.strip(), limit_s))
        except AttemptFailedError as problem:
            return [_finding(ERROR, "server", f"{settings.api_base_url}: {problem}")]


def _finding(level: str, what: str, text: str) -> dict[str, str]:
    return {"level": level, "what": what, "text": text}


def look(settings: GithubIssueSettings, token: str, timing: Timing) -> list[dict[str, str]]:
    """Do the check in this process; reads only."""
    found: list[dict[str, str]] = []
    api = Api(settings.api_base_url, settings.repo, token, timing)
    try:
        for finding in (_look_at_token, _look_at_repository, _look_at_labels):
            found += [_finding(*item) for item in finding(api, settings)]
        api.issues(1, state="open", **({"labels": settings.labels[0]} if settings.labels else {}))
        found.append(_finding(OK, "issues", "the list of issues can be read"))
    except RefusedError as problem:
        found.append(_finding(ERROR, "access", f"{problem} -> check token, repository name, and the token's issue permission"))
    except LimitedError as problem:
        found.append(_finding(WARNING, "server", f"the server asks to wait {problem.wait_s:.0f} s: {problem}"))
    except TransientError as problem:
        found.append(_finding(ERROR, "server", f"{problem} -> check network, proxy and api_base_url"))
    return found


Found = Iterator[tuple[str, str, str]]


def _look_at_token(api: Api, settings: GithubIssueSettings) -> Found:
    try:
        login = api.login
    except RefusedError as problem:
        yield ERROR, "token", f"the server does not accept the token ({problem}) -> make a new one"
        return
    yield OK, "token", f"the token belongs to {login}" if login else "the token is accepted; it belongs to no user"


def _look_at_repository(api: Api, settings: GithubIssueSettings) -> Found:
    yield OK, "repository", f"{api.full_name} can be read"
    if api.full_name.lower() != settings.repo.lower():
        yield WARNING, "repository", f"{settings.repo} is called {api.full_name} now -> change github_issue.repo"
    if api.is_public:
        advice = "; the log is masked there in any case -> set sanitize_launcher_log to true"
        advice = "" if settings.sanitize_launcher_log else advice
        yield WARNING, "public", f"{api.full_name} is public: everybody can read the reports{advice}"
    elif not settings.sanitize_launcher_log and settings.include_launcher_log and not settings.include_subject_user:
        text = "reports hold the session log with subject and user in it -> set sanitize_launcher_log to true (recommended)"
        yield WARNING, "privacy", text
    if settings.include_subject_user:
        yield WARNING, "privacy", "include_subject_user is on: reports name subject and user"
    if not api.may_push:
        text = "the token has no write permission: the server drops labels; reports are then found by their creator"
        yield WARNING, "permission", text


def _look_at_labels(api: Api, settings: GithubIssueSettings) -> Found:
    if not settings.labels:
        yield WARNING, "label", "no label is configured: reports are found by their creator only"
    for name in settings.labels:
        try:
            api.label(name)
            yield OK, "label", f"the label {name} exists"
        except GoneError:
            if api.may_push:
                yield OK, "label", f"the label {name} does not exist yet; the first report creates it"
            else:
                yield WARNING, "label", f"the label {name} is missing"
