"""A GitHub on loopback that knows as much as one report needs: it opens issues, lists them, and counts what was opened."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlparse

REPO = "lab/rigs"
TOKEN_ENV, TOKEN = "OPENSCOPE_SELFTEST_TOKEN", "selftest-token"
_WHEN = "2020-01-01T00:00:00Z"


class Github:
    """Serves from its construction to :meth:`close`; ``issues`` holds what was opened."""

    def __init__(self) -> None:
        self.issues: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self._lock = threading.Lock()
        github = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = github.answer(self.command, urlparse(self.path).path, json.loads(body) if body else {})
                data = json.dumps(content).encode("ascii")
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PATCH = do_GET  # noqa: N815 - the server looks for these names

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, verb: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and content."""
        if path == "/user":
            return 200, {"login": "selftest"}
        rest = path.removeprefix(f"/repos/{REPO}")
        with self._lock:
            if rest == "":
                rights = {"admin": False, "push": True, "pull": True}
                facts = {"id": 1, "full_name": REPO, "private": True, "archived": False, "has_issues": True}
                return 200, {**facts, "open_issues_count": len(self.issues), "permissions": rights}
            if rest.startswith("/labels"):
                return (201 if verb == "POST" else 200), {"name": "auto-report", "color": "ededed", "description": "", **body}
            if rest == "/issues":
                return (201, self._open(body)) if verb == "POST" else (200, self.issues[::-1])
            match = re.fullmatch(r"/issues/(\d+)(/comments)?", rest)
            if match is None:
                return 404, {"message": "Not Found"}
            if match[2]:
                if verb == "POST":
                    self.comments.append(str(body.get("body")))
                    return 201, {"id": len(self.comments), "body": body.get("body")}
                return 200, [{"id": number, "body": text} for number, text in enumerate(self.comments, 1)]
            issue = self.issues[int(match[1]) - 1]
            issue.update(body)
            return 200, issue

    def _open(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.issues) + 1
        self.issues.append(
            {
                "id": 1000 + number,
                "number": number,
                "title": str(body.get("title")),
                "body": str(body.get("body")),
                "state": "open",
                "state_reason": None,
                "locked": False,
                "labels": [{"name": name} for name in body.get("labels") or ()],
                "user": {"login": "selftest"},
                "comments": 0,
                "created_at": _WHEN,
                "closed_at": None,
                "html_url": f"{self.url}/{REPO}/issues/{number}",
                "url": f"{self.url}/repos/{REPO}/issues/{number}",
            }
        )
        return self.issues[-1]
