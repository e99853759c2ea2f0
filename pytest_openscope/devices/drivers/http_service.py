"""``driver: http``: a device or program with an HTTP interface."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler
from typing import Any

from ..peer import LoopbackServer, Script
from .base import ScriptSource, Talker


class HttpDevice(Talker):
    """One base URL. Proxies of the environment are not used: the device stands beside the rig.

    Args:
        url: ``http://192.168.0.9:8000/api``.
        timeout_s: longest wait for the connection and for each part of an answer.
        headers: sent with every request.
        token_env: environment variable whose value goes into ``Authorization: Bearer``.
        check_path: what ``check()`` gets; ``check_answer`` is a regular expression that the answer must match.
        safe_path: where ``safe_state()`` posts ``safe_body``.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
        token_env: str | None = None,
        check_path: str = "",
        check_answer: str | None = None,
        safe_path: str | None = None,
        safe_body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(check_path, check_answer)
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._token_env = token_env
        self._safe_path, self._safe_body = safe_path, safe_body

    def get(self, path: str = "", **query: Any) -> Any:
        """Return the answer: parsed where it is JSON, else as text."""
        return self.request("GET", path, query=query)

    def post(self, path: str = "", body: Any = None) -> Any:
        """Post ``body`` as JSON."""
        return self.request("POST", path, body)

    def put(self, path: str = "", body: Any = None) -> Any:
        """Put ``body`` as JSON."""
        return self.request("PUT", path, body)

    def delete(self, path: str = "") -> Any:
        return self.request("DELETE", path)

    def query(self, text: str) -> str:
        """Get a path and return the answer as text."""
        answer = self.get(text)
        return answer if isinstance(answer, str) else json.dumps(answer)

    def request(self, method: str, path: str = "", body: Any = None, query: dict[str, Any] | None = None) -> Any:
        """Make one request, over a connection of its own.

        Raises:
            TimeoutError: no answer in time.
            RuntimeError: the device answered with an error status; its text is in the message.
            OSError: no connection.
        """
        import requests

        url = f"{self.url}/{path.lstrip('/')}" if path else self.url
        headers = dict(self._headers)
        if self._token_env:
            headers["Authorization"] = f"Bearer {os.environ.get(self._token_env, '')}"
        with requests.Session() as session:
            session.trust_env = False
            request = session.prepare_request(requests.Request(method, url, headers, json=body, params=query))
            try:
                answer = session.send(request, timeout=self.timeout_s)
            except requests.Timeout as error:
                raise TimeoutError(f"{method} {request.url}: no answer within {self.timeout_s:g} s") from error
        text = answer.content.decode("utf-8", "replace")
        if not answer.ok:
            raise RuntimeError(f"{method} {request.url} was answered {answer.status_code} {answer.reason}: {text[:500]}")
        return json.loads(text) if text and answer.headers.get("Content-Type", "").startswith("application/json") else text

    def safe_state(self) -> None:
        """Post ``safe_body`` to ``safe_path``, if one is declared."""
        if self._safe_path is not None:
            self.post(self._safe_path, self._safe_body)

    def read_state(self) -> dict[str, Any]:
        return {"url": self.url, "timeout_s": self.timeout_s}

    @classmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """A server on a loopback port; its script is asked ``GET /path`` or ``POST /path <body>``."""
        played = Script.read(script) if script else Script({"error": "{}"}, "empty answers")
        server = LoopbackServer(_handler(played))
        return {**options, "url": f"http://{server.place}"}, server, f"scripted server ({played.name})"


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
            answer = script.answer(f"{self.command} {self.path}" + (f" {body}" if body else ""))
            data = (answer if answer is not None else f"nothing known of {self.path}").encode("utf-8")
            self.send_response(404 if answer is None else 200)
            is_json = answer is not None and answer[:1] in "{["
            self.send_header("Content-Type", "application/json" if is_json else "text/plain")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    return Handler
