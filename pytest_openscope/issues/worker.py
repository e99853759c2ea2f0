"""Asks the server in a process that can be killed: PyGithub's timeout is per socket operation, so a server that drips bytes
holds a call for ever.

The process gets one job as a JSON line on stdin, the token in it (never on a command line, never on disk), and answers with a
line on stdout. Its parent holds the outbox lock meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import GithubIssueSettings
from ..system import isolated_python, remove_file, spawn_detached, write_json
from .client import Api, GoneError, RefusedError, Timing, TransientError, shortened
from .outbox import Ledger, postpone, result
from .tracker import Tracker

#: Levels of a finding, from good to bad; ``error`` means that no report would arrive.
OK, WARNING, ERROR = "ok", "warning", "error"

#: What the process runs: nothing of the user's site is read before it has its path.
BOOT = (
    "import sys,json;j=json.loads(sys.stdin.readline());sys.path[:]=j['sys_path'];"
    "from pytest_openscope.issues.worker import main;main(j)"
)


class AttemptFailedError(Exception):
    """The process died, was killed at the deadline, or met a fault of its own."""


def ask(job: Mapping[str, Any], token: str, timing: Timing, limit_s: float) -> Any:
    """Give a job to a process of its own and return its reply: to a check, or to an :func:`attempt` where it names a ``path``.

    Raises:
        AttemptFailedError: no reply within ``limit_s``.
        OSError: the process cannot be started.
    """
    deadline = time.monotonic() + limit_s
    pipe = subprocess.PIPE
    process = spawn_detached([*isolated_python(), "-c", BOOT], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    package = str(Path(__file__).resolve().parents[2])
    sys_path = [package, *[entry for entry in sys.path if entry and entry != package]]
    replies: list[bytes] = []
    reader = threading.Thread(target=lambda stream: replies.append(stream.readline()), args=(process.stdout,), daemon=True)
    reader.start()
    try:
        process.stdin.write(
            json.dumps({**job, "token": token, "timing": asdict(timing), "sys_path": sys_path}).encode() + b"\n"
        )
        process.stdin.flush()
        reader.join(max(0.0, deadline - time.monotonic()))
    except OSError:
        pass  # it died, and so there is no reply
    finally:
        answered = not reader.is_alive()
        process.kill()
        reader.join()
        process.communicate()
    if not answered:
        raise AttemptFailedError(f"no answer within {limit_s:.0f} s")
    if not replies or not replies[0]:
        raise AttemptFailedError("the sending process died")
    reply = json.loads(replies[0])
    if "problem" in reply:
        raise AttemptFailedError(f"the sending process failed: {reply['problem']}")
    return reply["reply"]


# -- in the process


def main(job: dict[str, Any]) -> None:
    """Do the job.

    Stdin ends when the parent is gone, and with it the outbox lock: the process then ends at once, even within a request,
    before the next sender could find it writing to the same report. What was under way is looked up, as after a killed attempt.
    """

    def end_with_the_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    settings = GithubIssueSettings.of(job["settings"])
    try:
        api = Api(settings.api_base_url, settings.repo, job["token"], Timing(**job["timing"]))
        reply: dict[str, Any] = {"reply": attempt(Path(job["path"]), api) if "path" in job else look(api, settings)}
    except Exception:
        # The parent learns of it and postpones the report; nothing else may be lost for it.
        reply = {"problem": shortened(traceback.format_exc().strip().splitlines()[-1], 300)}
    print(json.dumps(reply), flush=True)
    os._exit(0)


def attempt(path: Path, api: Api, now: Callable[[], float] = time.time) -> dict[str, Any] | None:
    """Do what is due for the report in ``path``; return the answer for its session, if there is a new one.

    The report's file is changed, or removed when the report is done with.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    ledger = Ledger(path.parents[1])
    answer, done = None, False
    try:
        answer, done = Tracker(api, ledger, path, report, now).advance()
        report["state"]["attempts"] = 0
    except RefusedError as problem:
        done = True
        if not report["state"].get("number"):
            answer = result(report, "refused", reason=str(problem))
            ledger.refused(answer, report["occurred_at"])
    except TransientError as problem:
        if problem.wait_s:
            ledger.delay(report["settings"]["api_base_url"], now() + problem.wait_s)
        # A request to wait is no fault; a server that is down counts towards giving up even when it names an end.
        answer = postpone(report, str(problem), api.timing, now(), 0.0 if problem.uncertain else problem.wait_s)
    ledger.save()
    if done:
        remove_file(path)
    else:
        write_json(path, report)
    return answer


# -- are token, repository, permission and labels right?


def check_access(
    settings: GithubIssueSettings | Mapping[str, Any], token: str, *, limit_s: float = 30.0
) -> list[dict[str, str]]:
    """Return findings ``{"level", "what", "text"}``; nothing is created. Takes at most ``limit_s``, whatever happens."""
    settings = GithubIssueSettings.of(settings)
    if not settings.repo:
        return [_finding(ERROR, "repository", "no repository is configured -> set github_issue.repo to owner/name")]
    if not token.strip():
        text = f"the environment variable {settings.token_env} holds no token -> set it on this machine"
        return [_finding(ERROR, "token", text)]
    try:
        return list(ask({"settings": settings.as_json()}, token.strip(), Timing(), limit_s))
    except (AttemptFailedError, OSError) as problem:
        return [_finding(ERROR, "server", f"{settings.api_base_url}: {problem}")]


def _finding(level: str, what: str, text: str) -> dict[str, str]:
    return {"level": level, "what": what, "text": text}


def look(api: Api, settings: GithubIssueSettings) -> list[dict[str, str]]:
    """Do the check in this process; reads only."""
    found: list[dict[str, str]] = []
    try:
        for said in _findings(api, settings):
            found.append(_finding(*said))
    except RefusedError as problem:
        found.append(_finding(ERROR, "access", f"{problem} -> check token, repository name, and the token's issue permission"))
    except TransientError as problem:
        level = WARNING if problem.wait_s else ERROR
        found.append(_finding(level, "server", f"{problem} -> check network, proxy and api_base_url"))
    return found


def _findings(api: Api, settings: GithubIssueSettings) -> Iterator[tuple[str, str, str]]:
    try:
        login = api.login
    except RefusedError as problem:
        yield ERROR, "token", f"the server does not accept the token ({problem}) -> make a new one"
        return
    yield OK, "token", f"the token belongs to {login}" if login else "the token is accepted; it belongs to no user"
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
    api.issues(1, state="open", **({"labels": settings.labels[0]} if settings.labels else {}))
    yield OK, "issues", "the list of issues can be read"
