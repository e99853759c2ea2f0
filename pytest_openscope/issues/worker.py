"""Asks the server in a process that can be killed: PyGithub's timeout is per socket operation, so a server that drips bytes
holds a call for ever.

The token goes to it through the pipe: never on a command line, never on disk. When the parent is gone, and with it the outbox
lock, the process ends at once, even within a request, before the next sender could find it writing to the same report. What was
under way is looked up, as after a killed attempt.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import GithubIssueSettings
from ..system import UnansweredError, answer_with, ask, light_command, remove_file, write_json
from .client import Api, GoneError, RefusedError, Timing, TransientError
from .outbox import Ledger, postpone, result
from .tracker import Tracker

#: Levels of a finding, from good to bad; ``error`` means that no report would arrive.
OK, WARNING, ERROR = "ok", "warning", "error"


def ask_server(settings: GithubIssueSettings, token: str, timing: Timing, limit_s: float, path: Path | None = None) -> Any:
    """Return the findings of :func:`look`, or of an :func:`attempt` where a report's ``path`` is given, from another process.

    Raises:
        UnansweredError: no reply within ``limit_s``.
    """
    command = light_command(__name__, [], [entry for entry in sys.path if entry])
    job = {"settings": settings.as_json(), "token": token, "timing": asdict(timing), "path": str(path or "")}
    return ask(command, job, limit_s)


# -- in the process


def main(args: Sequence[str]) -> None:
    """Answer :func:`ask_server`."""
    answer_with(_reply)


def _reply(settings: dict[str, Any], token: str, timing: dict[str, Any], path: str) -> Any:
    read = GithubIssueSettings.of(settings)
    api = Api(read.api_base_url, read.repo, token, Timing(**timing))
    return attempt(Path(path), api) if path else look(api, read)


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
        return list(ask_server(settings, token.strip(), Timing(), limit_s))
    except UnansweredError as problem:
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
    if api.lacks_scope:
        yield ERROR, "scope", f"the token has no scope that lets it write to {api.full_name} -> give it the scope repo"
    if not api.may_push:
        text = "the token has no write permission: the server drops labels; reports are then found by their creator"
        text += " -> give it Issues: write"
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
