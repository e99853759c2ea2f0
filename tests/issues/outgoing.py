"""Everything that a test sent to a server is searched for what must not leave a rig.

Servers of tests derive from :class:`Outgoing` and call :meth:`Outgoing.search` when they are closed, so no test can forget it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

TOKEN = "ghp_" + "k3yK3y" * 6
_LOG = "<details><summary>Session log"


@dataclass
class Request:
    verb: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str

    @property
    def sent(self) -> str:
        """All that left the machine but for the authorization, which is the token's place."""
        lines = [f"{name}={value}" for name, value in self.query.items()]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "authorization"]
        return "\n".join([f"{self.verb} {unquote(self.path)}", *lines, self.body])


class Outgoing:
    """The requests that a server got.

    Attributes:
        private: what may not be in any request, by kind; this machine's own names are searched for besides.
        names: subject, user and session, which may not be in any request either …
        names_in_log: … but for the log excerpt of an issue.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.private: dict[str, str] = {"token": TOKEN}
        self.names: dict[str, str] = {}
        self.names_in_log = False

    def search(self) -> None:
        """Fail if anything private was sent."""
        for request in self.requests:
            everywhere = _single_backslashes(request.sent.lower())
            for kind, text in {**self.private, **HOMES}.items():
                found = _single_backslashes(text.lower()) in everywhere
                assert not found, f"{kind} {text!r} was sent: {request.verb} {request.path}"
            host = HOST is not None and HOST.search(everywhere)
            assert not host, f"this machine's name was sent: {request.verb} {request.path}"
            own = everywhere.partition(_LOG.lower())[0] if self.names_in_log else everywhere
            for kind, text in self.names.items():
                assert text.lower() not in own, f"{kind} {text!r} was sent: {request.verb} {request.path}"


def _single_backslashes(text: str) -> str:
    """Undo what JSON and ``repr`` make of a path of Windows, however often."""
    return re.sub(r"\\+", r"\\", text)


def _homes() -> dict[str, str]:
    found = {"this home": os.path.join(Path.home(), "")}
    if sys.platform != "win32":
        import pwd

        found["this account's home"] = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, "")
    return {kind: text for kind, text in found.items() if len(text) > 3}


def _host() -> re.Pattern[str] | None:
    name = socket.gethostname().lower()
    return None if name == "localhost" else re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])")


#: What this very machine must not tell.
HOMES, HOST = _homes(), _host()


class Recorder(Outgoing):
    """Stands before a server that is not ours and keeps what passes."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._server = _Recording(self, target)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Shut down; fails if anything private was sent."""
        self._server.shutdown()
        self._server.server_close()
        self.search()


class _Recording(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, recorder: Recorder, target: str) -> None:
        self.recorder, self.target = recorder, urlparse(target).netloc
        super().__init__(("127.0.0.1", 0), _Passing)


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Recording

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlparse(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        headers = dict(self.headers)
        self.server.recorder.requests.append(Request(self.command, url.path, query, headers, body.decode("utf-8")))
        connection = HTTPConnection(self.server.target, timeout=30)
        dropped = ("host", "connection", "accept-encoding")
        connection.request(
            self.command, self.path, body or None, {key: value for key, value in headers.items() if key.lower() not in dropped}
        )
        answer = connection.getresponse()
        data = answer.read()
        self.send_response_only(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("transfer-encoding", "content-length", "connection", "keep-alive"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
