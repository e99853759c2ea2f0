"""A GitHub of our own: issues, labels and comments over real HTTP on loopback, with a clock and faults on demand.

Only what GitHub documents or was seen to do: labels dropped without push right, lists that lag and hold pull requests, issues
closed as duplicates by id, locked ones, bodies refused beyond 65,536 characters.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from .outgoing import TOKEN, Outgoing, Request

REPO = "lab/rigs"


@dataclass
class Fault:
    """What to do to the next ``times`` requests that match; ``after`` lets the request take effect first."""

    verb: str = ""
    path: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: Any = None
    after: bool = False
    how: str = "answer"
    times: int = 1

    def matches(self, verb: str, path: str) -> bool:
        return (
            self.times > 0
            and (not self.verb or verb == self.verb)
            and (not self.path or re.search(self.path, path) is not None)
        )


class FakeGithub(Outgoing):
    """The state of a server; thread-safe. ``clock`` returns epoch seconds, ``list_lag_s`` is how far lists are behind."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.clock = clock
        self.lock = threading.RLock()
        self.repo: dict[str, Any] = {"private": True, "archived": False, "has_issues": True, "push": True}
        self.full_name = REPO
        self.moved_from: str | None = None
        self.redirect_status = 301
        self.labels: dict[str, dict[str, Any]] = {}
        self.issues: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.faults: list[Fault] = []
        self.list_lag_s = 0.0
        self.empty_lists = False
        self.next_number = 1
        self._server = _Server(self)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shut down; fails if anything private was sent."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self.search()

    # -- for tests

    def fault(self, **values: Any) -> Fault:
        made = Fault(**values)
        self.faults.append(made)
        return made

    def add_issue(
        self, title: str = "an issue", body: str = "", labels: tuple[str, ...] = ("auto-report",), **more: Any
    ) -> dict[str, Any]:
        with self.lock:
            number, self.next_number = self.next_number, self.next_number + 1
            at = self.clock()
            issue = {
                "id": 90_000 + number,
                "number": number,
                "title": title,
                "body": body,
                "state": "open",
                "state_reason": None,
                "locked": False,
                "created": at,
                "changed": at,
                "closed_at": None,
                "labels": [{"name": name} for name in labels],
                "user": {"login": "rig-bot"},
                **more,
            }
            self.issues[number] = issue
            self.comments[number] = []
            return issue

    def set_state(self, number: int, state: str, reason: str | None = None, at: float | None = None, **more: Any) -> None:
        issue = self.issues[number]
        moment = self.clock() if at is None else at
        issue.update(
            state=state, state_reason=reason, closed_at=moment if state == "closed" else None, changed=self.clock(), **more
        )

    def open_numbers(self) -> list[int]:
        return [number for number, issue in self.issues.items() if issue["state"] == "open" and not issue.get("pull")]

    def count(self, verb: str, path: str) -> int:
        return sum(1 for request in self.requests if request.verb == verb and re.fullmatch(path, request.path))

    def comment_bodies(self, number: int) -> list[str]:
        return [comment["body"] for comment in self.comments[number]]

    # -- the server's answers

    def shown(self, issue: dict[str, Any]) -> dict[str, Any]:
        kind = "pull" if issue.get("pull") else "issues"
        return {
            **{
                key: issue[key]
                for key in ("id", "number", "title", "body", "state", "state_reason", "locked", "labels", "user")
            },
            "html_url": f"https://github.test/{self.full_name}/{kind}/{issue['number']}",
            "url": f"{self.base_url}/repos/{self.full_name}/issues/{issue['number']}",
            "comments": len(self.comments[issue["number"]]),
            "created_at": iso(issue["created"]),
            "closed_at": iso(issue["closed_at"]) if issue["closed_at"] else None,
        }

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        with self.lock:
            if (
                request.headers.get("authorization") != f"token {TOKEN}"
                and request.headers.get("authorization") != f"Bearer {TOKEN}"
            ):
                return 401, {}, {"message": "Bad credentials"}
            if request.path == "/user":
                return 200, {}, {"login": "rig-bot"}
            match = re.fullmatch(r"/repos/([^/]+/[^/]+)(/.*)?", request.path)
            if match is None:
                return 404, {}, {"message": "Not Found"}
            if self.moved_from and match[1].lower() == self.moved_from.lower():
                location = f"{self.base_url}/repos/{self.full_name}{match[2] or ''}"
                return self.redirect_status, {"Location": location}, {"message": "Moved Permanently", "url": location}
            if match[1].lower() != self.full_name.lower():
                return 404, {}, {"message": "Not Found"}
            return self.in_repo(request, match[2] or "")

    def in_repo(self, request: Request, path: str) -> tuple[int, dict[str, str], Any]:
        if path == "":
            return 200, {}, self.repository()
        if self.repo["archived"] and request.verb != "GET":
            return 403, {}, {"message": "Repository was archived so is read-only."}
        if not self.repo["has_issues"]:
            return 410, {}, {"message": "Issues are disabled for this repo"}
        body = json.loads(request.body) if request.body else {}
        match = re.fullmatch(r"/labels(?:/(.+))?", path)
        if match:
            return self.label(request.verb, unquote(match[1] or ""), body)
        if path == "/issues":
            return self.listed(request.query) if request.verb == "GET" else self.create(body)
        match = re.fullmatch(r"/issues/(\d+)(/comments)?", path)
        if match is None:
            return 404, {}, {"message": "Not Found"}
        number = int(match[1])
        issue = self.issues.get(number)
        if issue is None:
            return 404, {}, {"message": "Not Found"}
        if issue.get("deleted"):
            return 410, {}, {"message": "This issue was deleted"}
        if match[2]:
            return self.commented(request, issue, body)
        return (200, {}, self.shown(issue)) if request.verb == "GET" else self.patch(issue, body)

    def repository(self) -> dict[str, Any]:
        push = self.repo["push"]
        horizon = self.clock() - self.list_lag_s
        return {
            "id": 7,
            "full_name": self.full_name,
            "private": self.repo["private"],
            "archived": self.repo["archived"],
            "has_issues": self.repo["has_issues"],
            "open_issues_count": sum(
                issue["state"] == "open" and issue["created"] <= horizon and not issue.get("deleted")
                for issue in self.issues.values()
            ),
            "permissions": {"admin": False, "push": push, "pull": True},
        }

    def label(self, verb: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if verb == "GET":
            label = self.labels.get(name)
            return (200, {}, label) if label else (404, {}, {"message": "Not Found"})
        if not self.repo["push"]:
            return 403, {}, {"message": "Resource not accessible by personal access token"}
        if verb == "POST":
            if body["name"] in self.labels:
                return 422, {}, {"message": "Validation Failed", "errors": [{"resource": "Label", "code": "already_exists"}]}
            self.labels[body["name"]] = {key: body.get(key) for key in ("name", "color", "description")}
            return 201, {}, self.labels[body["name"]]
        self.labels[name].update(body)
        return 200, {}, self.labels[name]

    def listed(self, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        if self.empty_lists:
            return 200, {}, []
        horizon = self.clock() - self.list_lag_s
        state, label, creator = query.get("state", "open"), query.get("labels"), query.get("creator")
        found = [
            issue
            for issue in self.issues.values()
            if not issue.get("deleted")
            and issue["created"] <= horizon
            and (state == "all" or issue["state"] == state)
            and (not label or label in [item["name"] for item in issue["labels"]])
            and (not creator or issue["user"]["login"] == creator)
        ]
        found.sort(key=lambda issue: -issue["number"])
        size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
        return 200, {}, [self.shown(issue) for issue in found[(page - 1) * size : page * size]]

    def create(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if len(body.get("body") or "") > 65_536:
            return (
                422,
                {},
                {"message": "Validation Failed", "errors": [{"message": "body is too long (maximum is 65536 characters)"}]},
            )
        labels = tuple(body.get("labels") or ()) if self.repo["push"] else ()
        return 201, {}, self.shown(self.add_issue(body["title"], body.get("body") or "", labels))

    def patch(self, issue: dict[str, Any], body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        if "duplicate_issue_id" in body and body["duplicate_issue_id"] not in [item["id"] for item in self.issues.values()]:
            return 422, {}, {"message": "Validation Failed", "errors": [{"field": "duplicate_issue_id"}]}
        if "state" in body:
            self.set_state(issue["number"], body["state"], body.get("state_reason"))
            issue["duplicate_issue_id"] = body.get("duplicate_issue_id")
        for key in ("title", "body"):
            issue[key] = body.get(key, issue[key])
        return 200, {}, self.shown(issue)

    def commented(self, request: Request, issue: dict[str, Any], body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        comments = self.comments[issue["number"]]
        if request.verb == "GET":
            size, page = int(request.query.get("per_page", 30)), int(request.query.get("page", 1))
            return 200, {}, comments[(page - 1) * size : page * size]
        if issue["locked"]:
            return 403, {}, {"message": "Unable to create comment because issue is locked."}
        comments.append({"id": len(comments) + 1, "body": body["body"], "user": {"login": "rig-bot"}})
        return 201, {}, comments[-1]


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, github: FakeGithub) -> None:
        self.github = github
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        github = self.server.github
        url = urlparse(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode("utf-8") if length else ""
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, body)
        with github.lock:
            github.requests.append(request)
            fault = next((item for item in github.faults if item.matches(request.verb, request.path)), None)
            if fault is not None:
                fault.times -= 1
        if fault is None:
            self.reply(*github.answer(request))
            return
        normal = github.answer(request) if fault.after or fault.how in ("drip", "truncate") else (500, {}, {})
        self.misbehave(fault, normal)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def reply(self, status: int, headers: dict[str, str], content: Any) -> None:
        data = json.dumps(content).encode()
        self.head(status, headers, len(data))
        self.wfile.write(data)

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def misbehave(self, fault: Fault, normal: tuple[int, dict[str, str], Any]) -> None:
        data = json.dumps(normal[2]).encode()
        # An answer that is only unwelcome leaves the connection as it is. Closing it unannounced would be another fault: the
        # client's next request may or may not meet the closed end.
        self.close_connection = fault.how != "answer"
        if fault.how == "answer":
            self.reply(fault.status, fault.headers, {"message": "fault"} if fault.content is None else fault.content)
        elif fault.how == "hang":
            self.server.closing.wait(60)
        elif fault.how == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.how == "truncate":
            half = data[: len(data) // 2]
            self.head(normal[0], {}, len(half))
            self.wfile.write(half)
        elif fault.how == "drip":
            self.head(normal[0], {}, len(data))
            for byte in data:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.closing.wait(0.1):
                    return

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
