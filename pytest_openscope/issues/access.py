"""Are token, repository, permission and labels right? Asked without creating anything."""

from __future__ import annotations

from typing import Any

from ..config import GithubIssueSettings
from .client import Api, GoneError, LimitedError, RefusedError, TransientError
from .find import _quoted as quoted
from .settings import Timing

#: Levels of a finding, from good to bad; ``error`` means that no report would arrive.
OK, WARNING, ERROR = "ok", "warning", "error"


def check_access(settings: Any, token: str, *, limit_s: float = 30.0, timing: Timing | None = None) -> list[dict[str, str]]:
    """Return findings ``{"level", "what", "text"}``; takes at most ``limit_s``, however the server behaves."""
    settings = GithubIssueSettings.of(settings)
    if not settings.repo:
        return [finding(ERROR, "repository", "no repository is configured -> set github_issue.repo to owner/name")]
    if not token.strip():
        return [
            finding(ERROR, "token", f"the environment variable {settings.token_env} holds no token -> set it on this machine")
        ]
    from .workers import AttemptFailedError, Workers

    workers = Workers(_nowhere(), timing or Timing())
    try:
        reply = workers.ask({"do": "check", "settings": settings.as_json()}, token.strip(), limit_s)
    except AttemptFailedError as problem:
        return [finding(ERROR, "server", f"{settings.api_base_url}: {problem}")]
    finally:
        workers.close()
    return list(reply["findings"])


def _nowhere() -> Any:
    from pathlib import Path

    return Path()


def finding(level: str, what: str, text: str) -> dict[str, str]:
    """Return one finding as it travels."""
    return {"level": level, "what": what, "text": text}


def look(settings: GithubIssueSettings, token: str, timing: Timing) -> list[dict[str, str]]:
    """Do the check in this process; reads only."""
    found: list[dict[str, str]] = []
    api = Api(settings.api_base_url, settings.repo, token, timing)
    try:
        found += _token(api)
        found += _repository(api, settings)
        found += _labels(api, settings)
        api.issues(1, state="open", **({"labels": settings.labels[0]} if settings.labels else {}))
        found.append(finding(OK, "issues", "the list of issues can be read"))
    except RefusedError as problem:
        found.append(finding(ERROR, "access", f"{problem} -> check token, repository name, and the token's issue permission"))
    except LimitedError as problem:
        found.append(finding(WARNING, "server", f"the server asks to wait {problem.wait_s:.0f} s: {problem}"))
    except TransientError as problem:
        found.append(finding(ERROR, "server", f"{problem} -> check network, proxy and api_base_url"))
    return found


def _token(api: Api) -> list[dict[str, str]]:
    try:
        user = api.request("GET", "/user")[1]
    except GoneError:
        user = None
    except RefusedError as problem:
        if str(problem).startswith("401"):
            return [finding(ERROR, "token", f"the server does not accept the token ({problem}) -> make a new one")]
        user = None
    login = user.get("login") if isinstance(user, dict) else None
    return [finding(OK, "token", f"the token belongs to {login}" if login else "the token is accepted; it belongs to no user")]


def _repository(api: Api, settings: GithubIssueSettings) -> list[dict[str, str]]:
    found = [finding(OK, "repository", f"{api.full_name} can be read")]
    if api.full_name.lower() != settings.repo.lower():
        found.append(
            finding(WARNING, "repository", f"{settings.repo} is called {api.full_name} now -> change github_issue.repo")
        )
    if api.is_public:
        advice = (
            ""
            if settings.sanitize_launcher_log
            else "; the log is masked there in any case -> set sanitize_launcher_log to true"
        )
        found.append(finding(WARNING, "public", f"{api.full_name} is public: everybody can read the reports{advice}"))
    elif not settings.sanitize_launcher_log and settings.include_launcher_log and not settings.include_subject_user:
        text = "reports hold the session log with subject and user in it -> set sanitize_launcher_log to true (recommended)"
        found.append(finding(WARNING, "privacy", text))
    if settings.include_subject_user:
        found.append(finding(WARNING, "privacy", "include_subject_user is on: reports name subject and user"))
    if not api.may_push:
        text = "the token has no write permission: the server drops labels; reports are then found by their creator"
        found.append(finding(WARNING, "permission", text))
    return found


def _labels(api: Api, settings: GithubIssueSettings) -> list[dict[str, str]]:
    found = []
    for name in settings.labels:
        try:
            api.get(f"/labels/{quoted(name)}")
            found.append(finding(OK, "label", f"the label {name} exists"))
        except GoneError:
            text = (
                f"the label {name} does not exist yet; the first report creates it"
                if api.may_push
                else f"the label {name} is missing"
            )
            found.append(finding(OK if api.may_push else WARNING, "label", text))
    return found or [finding(WARNING, "label", "no label is configured: reports are found by their creator only")]
