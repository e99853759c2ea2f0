"""GitHub through PyGithub's requester: one request, one answer, no retry, and every surprise has a name.

PyGithub's objects complete themselves with further requests and take a 307 or a cut-off answer for success, so the raw
requester is used: status, headers and JSON are checked here. PyGithub itself brings authentication, TLS and proxies.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlparse

PER_PAGE = 100
REASON_CHARS = 200


@dataclass(frozen=True)
class Timing:
    """How long things may take and when they are tried again; all in seconds.

    Attributes:
        attempt_s: hard limit of one report's dealings with the server; the worker process is killed then.
        request_timeout_s: per socket operation; PyGithub takes whole seconds only.
        write_pace_s: between two writes; GitHub asks for one second.
        settle_s: after a creation, when to look for a lower number (lists lag seconds, at times a minute).
        trust_s: age at which a list must show an issue; until then a lost answer is looked up, not repeated.
        resettle_s: interval of further looks while the list does not show the own issue, at most ``resettle_times``.
        retry_s: first and longest interval after a passing fault; doubled with every attempt.
        max_delay_s: for no longer a server may ask to wait.
        give_up_s: age at which a report is dropped, after ``give_up_attempts`` in vain.
    """

    attempt_s: float = 30.0
    request_timeout_s: int = 10
    write_pace_s: float = 1.0
    settle_s: tuple[float, ...] = (6.0, 25.0, 90.0)
    trust_s: float = 90.0
    resettle_s: float = 60.0
    resettle_times: int = 10
    retry_s: tuple[float, float] = (15.0, 3600.0)
    max_delay_s: float = 24 * 3600.0
    give_up_attempts: int = 8
    give_up_s: float = 30 * 24 * 3600.0


class ServerError(Exception):
    """No success; whether a write took place is unknown unless ``executed`` is False."""

    executed: bool | None = False


class RefusedError(ServerError):
    """The server's no is final for this report."""


class GoneError(RefusedError):
    """What was asked for does not exist or may not be seen (404, 410)."""


class InvalidError(RefusedError):
    """The server does not take the content (422)."""


class TransientError(ServerError):
    """No usable answer; ``wait_s`` is how long the server asks to be left alone, 0 where it does not say."""

    def __init__(self, message: str, executed: bool | None = None, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.executed = executed
        self.wait_s = wait_s


class LimitedError(TransientError):
    """The server asks to wait ``wait_s`` seconds, and did nothing."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message, False, wait_s)


class Api:
    """One repository of one server with one token."""

    def __init__(
        self, api_base_url: str, repo: str, token: str, timing: Timing, clock: Callable[[], float] = time.time
    ) -> None:
        from github import Auth, Github

        _quiet_pygithub()
        self.base_url = api_base_url.rstrip("/")
        self.repo = repo
        self.timing = timing
        self._clock = clock
        self._github = Github(
            base_url=self.base_url,
            auth=Auth.Token(token),
            timeout=max(1, int(timing.request_timeout_s)),
            retry=None,
            lazy=True,
            seconds_between_requests=None,
            seconds_between_writes=timing.write_pace_s or None,
            user_agent="pytest-openscope",
        )

    def close(self) -> None:
        """Close the connections."""
        self._github.close()

    def request(self, verb: str, path: str, parameters: Mapping[str, Any] | None = None, content: Any = None) -> Any:
        """Make one request; return the JSON value.

        Raises:
            GoneError, InvalidError, RefusedError, LimitedError, TransientError: see there.
        """
        status, _, text = self._exchange(verb, path, parameters, content)
        if status >= 300:
            raise TransientError(f"{status}: the repository has moved", executed=False)
        return self._json(verb, text)

    def _exchange(
        self, verb: str, path: str, parameters: Mapping[str, Any] | None = None, content: Any = None
    ) -> tuple[int, dict[str, str], str]:
        """Return status, headers (lower-case names) and text of an answer that is no error, though it may be a redirect."""
        import requests

        try:
            status, headers, text = self._github.requester.requestJson(
                verb, path, dict(parameters) if parameters else None, None, content
            )
        except requests.exceptions.RequestException as problem:
            raise TransientError(self._unreached(problem), False if verb == "GET" else _executed(problem)) from problem
        except (RuntimeError, AssertionError) as problem:
            # PyGithub follows no redirect to another server.
            raise RefusedError(f"{verb} {path}: {cause_in_words(problem)}") from problem
        except (OSError, ValueError) as problem:
            raise TransientError(f"{verb} {self.base_url}: {cause_in_words(problem)}") from problem
        if status >= 400:
            self._raise(status, headers, text)
        return status, headers, text

    def _unreached(self, problem: BaseException) -> str:
        parts = urlparse(self.base_url)
        server = parts.netloc.rpartition("@")[2] or self.base_url
        what = "gave no answer" if _executed(problem) is None else "cannot be reached"
        if proxy := _proxy_at_fault(problem, self.base_url):
            return (
                f"the proxy {proxy} (of this PC's settings), through which {server} is asked, {what}: {cause_in_words(problem)}"
            )
        return f"{server} {what}: {cause_in_words(problem)}"

    def _json(self, verb: str, text: str) -> Any:
        try:
            return json.loads(text) if text else None
        except ValueError as problem:
            raise TransientError(f"{verb}: the answer was cut off or is no JSON{self._enterprise_hint()}") from problem

    def _enterprise_hint(self) -> str:
        """Say where GitHub Enterprise has its API when the address is that of its pages."""
        parts = urlparse(self.base_url)
        if parts.path.strip("/") or (parts.hostname or "").startswith("api."):
            return ""
        return f" -> GitHub Enterprise has its API below /api/v3: set api_base_url to {self.base_url}/api/v3"

    def _raise(self, status: int, headers: Mapping[str, str], text: str) -> None:
        error = _error_in(text)
        message = shortened(str(error.get("message") or ""))
        said = f"{status} {message}".strip()
        if status == 429 or (status == 403 and _is_limit(headers, message)):
            raise LimitedError(said, self._wait_s(headers))
        if status == 408 or status >= 500:
            raise TransientError(said, wait_s=self._wait_s(headers) if headers.get("retry-after") else 0.0)
        if status in (404, 410):
            raise GoneError(said)
        if status == 422:
            raise InvalidError(said + (f" {shortened(json.dumps(error['errors']))}" if error.get("errors") else ""))
        raise RefusedError(said)

    def _wait_s(self, headers: Mapping[str, str]) -> float:
        wait_s = 60.0
        after, reset = headers.get("retry-after", ""), headers.get("x-ratelimit-reset", "")
        try:
            if after:
                wait_s = _seconds(after, self._clock())
            elif headers.get("x-ratelimit-remaining") == "0" and reset:
                wait_s = float(reset) - self._clock()
        except ValueError:
            wait_s = 60.0
        return min(max(1.0, wait_s), self.timing.max_delay_s)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of a GET below the repository."""
        return self.request("GET", f"/repos/{self.full_name}{path}", parameters)

    def send(self, verb: str, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Make a write below the repository and return its JSON object.

        Raises:
            TransientError: also when the answer is no object.
        """
        value = self.request(verb, f"/repos/{self.full_name}{path}", None, dict(content))
        if not isinstance(value, dict):
            raise TransientError(f"{verb}: the answer is not an object")
        return value

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The repository's own data, asked for once; a renamed repository is followed on the same server only.

        Raises:
            RefusedError: not found, archived, or without issues.
        """
        path = f"/repos/{self.repo}"
        for _ in range(3):
            try:
                status, headers, text = self._exchange("GET", path)
            except GoneError as problem:
                text = f"{self.repo} does not exist, or the token may not see it ({problem})"
                raise GoneError(text + self._enterprise_hint()) from problem
            location = headers.get("location", "")
            if status in (301, 302, 307, 308) and location:
                path = self._same_server(location)
                continue
            value = self._json("GET", text)
            if not isinstance(value, dict) or not isinstance(value.get("full_name"), str):
                raise TransientError(f"GET: the answer does not describe a repository{self._enterprise_hint()}")
            if value.get("archived"):
                raise RefusedError(f"{value['full_name']} is archived")
            if value.get("has_issues") is False:
                raise RefusedError(f"{value['full_name']} has its issues turned off")
            return value
        raise RefusedError(f"{self.repo} redirects without end")

    def _same_server(self, location: str) -> str:
        target, own = urlparse(location), urlparse(self.base_url)
        if target.netloc and (target.hostname, target.port) != (own.hostname, own.port):
            raise RefusedError(f"{self.repo} redirects to another server, {target.hostname}; the token is not sent there")
        prefix = own.path.rstrip("/")
        return target.path[len(prefix) :] if prefix and target.path.startswith(prefix) else target.path

    @property
    def full_name(self) -> str:
        """``owner/name`` as the server has it now."""
        return str(self.facts["full_name"])

    @property
    def is_public(self) -> bool:
        """True unless the server says that the repository is private."""
        return self.facts.get("private") is not True and self.facts.get("visibility") not in ("private", "internal")

    @property
    def may_push(self) -> bool:
        """True unless the server says that the token has no push right, without which it drops labels in silence."""
        rights = self.facts.get("permissions")
        return not isinstance(rights, dict) or bool(rights.get("push") or rights.get("maintain") or rights.get("admin"))

    @cached_property
    def login(self) -> str:
        """The token's user; "" for tokens that have none (installations of an app).

        Raises:
            RefusedError: the server does not accept the token.
        """
        try:
            value = self.request("GET", "/user")
        except RefusedError as problem:
            if str(problem).startswith("401"):
                raise
            value = None
        return str(value.get("login") or "") if isinstance(value, dict) else ""

    def label(self, name: str) -> Any:
        """Return a label.

        Raises:
            GoneError: there is none of that name.
        """
        return self.get(f"/labels/{quote(name, safe='')}")

    def issues(self, pages: int, **parameters: Any) -> tuple[list[dict[str, Any]], bool]:
        """Return issues (no pull requests), newest first, and whether that is all of them.

        Raises:
            TransientError: an answer is not a list of issues.
        """
        found: list[dict[str, Any]] = []
        for page in range(1, pages + 1):
            value = self.get("/issues", sort="created", direction="desc", per_page=PER_PAGE, page=page, **parameters)
            if not isinstance(value, list) or not all(isinstance(item, dict) and "number" in item for item in value):
                raise TransientError("GET issues: the answer is not a list of issues")
            found += [item for item in value if "/pull/" not in str(item.get("html_url")) and "pull_request" not in item]
            if len(value) < PER_PAGE:
                return found, True
        return found, False

    def issue(self, number: int) -> dict[str, Any] | None:
        """Return an issue; None when it was deleted, or moved to another repository."""
        try:
            value = self.get(f"/issues/{number}")
        except GoneError:
            return None
        if not isinstance(value, dict) or "state" not in value:
            raise TransientError("GET issue: the answer is not an issue")
        return value if value.get("number") == number else None

    def comments(self, number: int, pages: int = 5) -> list[str]:
        """Return the texts of an issue's comments, oldest first, bounded."""
        found: list[str] = []
        for page in range(1, pages + 1):
            value = self.get(f"/issues/{number}/comments", per_page=PER_PAGE, page=page)
            if not isinstance(value, list):
                raise TransientError("GET comments: the answer is not a list")
            found += [str(item.get("body") or "") for item in value if isinstance(item, dict)]
            if len(value) < PER_PAGE:
                break
        return found


def _quiet_pygithub() -> None:
    """PyGithub adds a stderr handler to its logger at import, which would write into the operator's terminal."""
    logger = logging.getLogger("github")
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)


def _proxy_at_fault(problem: BaseException, url: str) -> str:
    """Return host and port of the proxy that failed; "" where it was none."""
    import requests

    if not isinstance(problem, requests.exceptions.ProxyError):
        return ""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    return urlparse(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]


def _executed(problem: BaseException) -> bool | None:
    """A connection that never came about carried no request."""
    import requests

    text = str(problem)
    never = ("NewConnectionError", "NameResolutionError", "Unable to connect to proxy")
    refused = isinstance(problem, requests.exceptions.ConnectTimeout) or any(name in text for name in never)
    return False if refused else None


def _seconds(after: str, now: float) -> float:
    """Return what ``Retry-After`` asks for: seconds, or a date.

    Raises:
        ValueError: it is neither.
    """
    from email.utils import parsedate_to_datetime

    try:
        return float(after)
    except ValueError:
        try:
            return parsedate_to_datetime(after).timestamp() - now
        except TypeError as problem:
            # What Python 3.10's mail package raises.
            raise ValueError(after) from problem


def _error_in(text: str) -> dict[str, Any]:
    """Return what an answer that says no tells about it."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_limit(headers: Mapping[str, str], message: str) -> bool:
    """Tell whether a 403 asks for patience only."""
    said = message.lower()
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in said or "abuse" in said


def cause_in_words(problem: BaseException) -> str:
    """Say why there was no answer: by the innermost cause, since the exceptions around it quote addresses of objects."""
    import socket
    import ssl

    known: tuple[tuple[type[BaseException], str], ...] = (
        (socket.gaierror, "name not resolved"),
        (ConnectionRefusedError, "connection refused"),
        (TimeoutError, "timed out"),
        (ssl.SSLCertVerificationError, "its certificate is not accepted"),
        (ConnectionError, "connection closed"),
    )
    chain = [problem]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        words = next((words for kind, words in known if isinstance(link, kind)), "")
        if words:
            return words
    return shortened(f"{type(chain[-1]).__name__}: {chain[-1]}")


def shortened(text: str, limit: int = REASON_CHARS) -> str:
    """Return a text of at most ``limit`` characters and a "…" after its last whole word where something is left out."""
    if len(text) <= limit:
        return text
    start = text[:limit]
    return f"{start.rpartition(' ')[0] or start}…"
