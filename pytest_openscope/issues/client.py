"""GitHub through PyGithub's requester: one request, one answer, no retry, and every surprise has a name.

PyGithub's objects complete themselves with further requests and take a 307 or a cut-off answer for success, so the requester
below them is used. It brings authentication, redirects within the server, the pace of writes, TLS and proxies.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlparse

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

PER_PAGE = 100
REASON_CHARS = 200
#: For no longer a server may ask to wait.
MAX_DELAY_S = 24 * 3600.0
Answer = TypeVar("Answer", dict[str, Any], list[Any])


@dataclass(frozen=True)
class Timing:
    """How long things may take and when they are tried again; all in seconds.

    Attributes:
        request_timeout_s: per socket operation; PyGithub takes whole seconds only.
        write_pace_s: between two writes; GitHub asks for one second.
        settle_s: after a creation, when to look for a lower number, until the list shows the own issue after ``trust_s``.
        trust_s: age at which a list must show an issue; until then a lost answer is looked up, not repeated.
        retry_s: first and longest interval after a passing fault; doubled with every attempt.
    """

    request_timeout_s: int = 10
    write_pace_s: float = 1.0
    settle_s: tuple[float, ...] = (6.0, 25.0, 90.0, *range(150, 750, 60))
    trust_s: float = 90.0
    retry_s: tuple[float, float] = (15.0, 3600.0)


class ServerError(Exception):
    """No success.

    Attributes:
        uncertain: a write may have taken place all the same.
        wait_s: how long the server asks to be left alone; 0 where it does not say.
    """

    def __init__(self, message: str, uncertain: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.uncertain = uncertain
        self.wait_s = wait_s


class RefusedError(ServerError):
    """The server's no is final for this report."""


class GoneError(RefusedError):
    """What was asked for does not exist or may not be seen (404, 410)."""


class TransientError(ServerError):
    """No usable answer now; a later attempt may get one."""


class Api:
    """One repository of one server with one token."""

    def __init__(self, api_base_url: str, repo: str, token: str, timing: Timing) -> None:
        # Not above: importing it adds a handler that writes to stderr, in a session into the operator's terminal.
        from github import Auth, Github

        self.base_url = api_base_url.rstrip("/")
        self.repo = repo
        self.timing = timing
        self._token = token
        self._github = Github(
            base_url=self.base_url,
            auth=Auth.Token(token),
            timeout=timing.request_timeout_s,
            # Its own would repeat a POST that may have taken place.
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=timing.write_pace_s,
            user_agent="pytest-openscope",
        )

    def close(self) -> None:
        """Close the connections."""
        self._github.close()

    def request(
        self, verb: str, path: str, kind: type[Answer], content: Mapping[str, Any] | None = None, **query: Any
    ) -> Answer:
        """Make one request; return the JSON value, a ``kind``. No ``content`` leaves with the token in it.

        Raises:
            GoneError, RefusedError, TransientError: see there.
        """
        masked = None if content is None else json.loads(json.dumps(content).replace(self._token, "***"))
        status, headers, text = self._exchange(verb, path, query, masked)
        if verb == "GET" and 300 <= status < 400 and "location" in headers:
            # The repository was renamed; PyGithub follows a 301 only.
            moved = urljoin(self.base_url, headers["location"])
            if urlparse(moved)[:2] != urlparse(self.base_url)[:2]:
                raise RefusedError(f"{path} redirects to another server, {moved}; the token is not sent there")
            status, headers, text = self._exchange(verb, moved, {}, None)
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if status >= 300:
            raise self._no_success(status, headers, value if isinstance(value, dict) else {})
        if not isinstance(value, kind):
            hint = self._enterprise_hint()
            raise TransientError(f"{verb}: the answer was cut off or is not what GitHub sends{hint}", uncertain=True)
        return value

    def _exchange(self, verb: str, path: str, query: dict[str, Any], content: Any) -> tuple[int, dict[str, str], str]:
        """Return status, headers (lower-case names) and text."""
        try:
            return self._github.requester.requestJson(verb, path, query, None, content)
        except requests.RequestException as problem:
            raise self._no_answer(problem) from problem
        except RuntimeError as problem:
            # What PyGithub raises of a 301 to another server, or to where it has just been.
            raise RefusedError(f"{path}: {problem}; the token is sent to {self.base_url} only") from problem

    def _no_answer(self, problem: requests.RequestException) -> TransientError:
        text = str(problem)
        never = ("NewConnectionError", "NameResolutionError", "Unable to connect to proxy")
        unreached = isinstance(problem, requests.ConnectTimeout) or any(name in text for name in never)
        what = "cannot be reached" if unreached else "gave no answer"
        server = urlparse(self.base_url).netloc
        if isinstance(problem, requests.exceptions.ProxyError):
            proxy = requests.utils.select_proxy(self.base_url, requests.utils.get_environ_proxies(self.base_url)) or ""
            host = urlparse(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
            server = f"the proxy {host} (of this PC's settings), through which {server} is asked,"
        return TransientError(f"{server} {what}: {cause_in_words(problem)}", uncertain=not unreached)

    def _no_success(self, status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> ServerError:
        said = f"{status} {shortened(str(error.get('message') or ''))}".strip()
        if error.get("errors"):
            said += f" {shortened(json.dumps(error['errors']))}"
        if status < 400:
            return TransientError(f"{status}: the repository has moved")
        if status == 429 or (status == 403 and _is_limit(headers, said)):
            return TransientError(f"the server asks to wait: {said}", wait_s=_wait_s(headers))
        if status == 408 or status >= 500:
            wait_s = _wait_s(headers) if "retry-after" in headers else 0.0
            return TransientError(said, uncertain=True, wait_s=wait_s)
        return GoneError(said) if status in (404, 410) else RefusedError(said)

    def _enterprise_hint(self) -> str:
        """Say where GitHub Enterprise has its API when the address is that of its pages."""
        parts = urlparse(self.base_url)
        if parts.path or (parts.hostname or "").startswith("api."):
            return ""
        return f" -> GitHub Enterprise has its API below /api/v3: set api_base_url to {self.base_url}/api/v3"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The repository's own data, asked for once.

        Raises:
            RefusedError: not found, archived, or without issues.
        """
        try:
            value = self.request("GET", f"/repos/{self.repo}", dict)
        except GoneError as problem:
            text = f"{self.repo} does not exist, or the token may not see it ({problem})"
            raise GoneError(text + self._enterprise_hint()) from problem
        if value.get("archived"):
            raise RefusedError(f"{value['full_name']} is archived")
        if value.get("has_issues") is False:
            raise RefusedError(f"{value['full_name']} has its issues turned off")
        return value

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
        return not rights or bool(rights.get("push") or rights.get("maintain") or rights.get("admin"))

    @property
    def lacks_scope(self) -> bool:
        """True for a token that may not write here by its scopes, which only classic tokens have."""
        scopes = self._github.oauth_scopes
        wanted = {"repo", "public_repo"} if self.is_public else {"repo"}
        return scopes is not None and not wanted & {scope.strip() for scope in scopes}

    @cached_property
    def login(self) -> str:
        """The token's user; "" for tokens that have none (installations of an app).

        Raises:
            RefusedError: the server does not accept the token.
        """
        try:
            return str(self.request("GET", "/user", dict).get("login") or "")
        except RefusedError as problem:
            if str(problem).startswith("401"):
                raise
            return ""

    def send(self, verb: str, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Make a write below the repository and return its JSON object."""
        return self.request(verb, f"/repos/{self.full_name}{path}", dict, content)

    def label(self, name: str) -> dict[str, Any]:
        """Return a label.

        Raises:
            GoneError: there is none of that name.
        """
        return self.request("GET", f"/repos/{self.full_name}/labels/{quote(name, safe='')}", dict)

    def issues(self, pages: int, **query: Any) -> tuple[list[dict[str, Any]], bool]:
        """Return issues (no pull requests), newest first, and whether that is all of them."""
        found, whole = self._listed("/issues", pages, sort="created", direction="desc", **query)
        return [item for item in found if "/pull/" not in item["html_url"]], whole

    def lists_nothing(self) -> bool:
        """Tell whether the list of open issues and pull requests is empty."""
        return not self._listed("/issues", 1, state="open")[0]

    def issue(self, number: int) -> dict[str, Any] | None:
        """Return an issue; None when it was deleted, or moved to another repository."""
        try:
            value = self.request("GET", f"/repos/{self.full_name}/issues/{number}", dict)
        except GoneError:
            return None
        return value if value["number"] == number else None

    def comments(self, number: int) -> list[str]:
        """Return the texts of an issue's comments, oldest first, bounded."""
        return [str(item.get("body") or "") for item in self._listed(f"/issues/{number}/comments", 5)[0]]

    def _listed(self, path: str, pages: int, **query: Any) -> tuple[list[dict[str, Any]], bool]:
        found: list[dict[str, Any]] = []
        for page in range(1, pages + 1):
            part = self.request("GET", f"/repos/{self.full_name}{path}", list, per_page=PER_PAGE, page=page, **query)
            found += part
            if len(part) < PER_PAGE:
                return found, True
        return found, False


def _wait_s(headers: Mapping[str, str]) -> float:
    wait_s = 60.0
    try:
        if "retry-after" in headers:
            wait_s = Retry().parse_retry_after(headers["retry-after"])
        elif headers.get("x-ratelimit-remaining") == "0":
            wait_s = float(headers["x-ratelimit-reset"]) - time.time()
    except (InvalidHeader, KeyError):
        pass
    return min(max(1.0, wait_s), MAX_DELAY_S)


def _is_limit(headers: Mapping[str, str], said: str) -> bool:
    """Tell whether a 403 asks for patience only."""
    text = said.lower()
    return "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0" or "rate limit" in text or "abuse" in text


_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "name not resolved"),
    (ConnectionRefusedError, "connection refused"),
    (TimeoutError, "timed out"),
    (ssl.SSLCertVerificationError, "its certificate is not accepted"),
    (ConnectionError, "connection closed"),
)


def cause_in_words(problem: BaseException) -> str:
    """Say why there was no answer: by the innermost cause, since the exceptions around it quote addresses of objects."""
    chain = [problem]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for link in reversed(chain):
        for kind, words in _CAUSES:
            if isinstance(link, kind):
                return words
    return shortened(f"{type(chain[-1]).__name__}: {chain[-1]}")


def shortened(text: str, limit: int = REASON_CHARS) -> str:
    """Return a text of at most ``limit`` characters and a "…" after its last whole word where something is left out."""
    if len(text) <= limit:
        return text
    start = text[:limit]
    return f"{start.rpartition(' ')[0] or start}…"
