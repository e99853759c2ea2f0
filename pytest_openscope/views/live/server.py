"""Serves the live page of one session, in a process beside the experiment (starlette and uvicorn).

One reader for all browsers looks at the session folder a few times a second. What it finds goes into a short queue of each
browser; one that does not take it gets the whole state again once it does. Whoever knows the token may look, answer, note and
stop; only what the page itself sends may change anything.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...records import hand_over
from ...system import step_back
from ..pages import source_hash
from .content import LiveSession, Update

_TEMPLATE = Path(__file__).with_name("template")
TICK_S = 0.25
#: Without a browser nobody waits for anything.
_IDLE_TICK_S = 1.0
_KEEP_ALIVE_S = 15.0
#: A browser that takes nothing for so long is left alone.
_STUCK_S = 60.0
MAX_CLIENTS = 50
_QUEUED_BLOCKS = 32
MAX_BODY_BYTES = 64 * 1024
_TAKEN_S = 5.0
#: How long a browser keeps the page up after the session's end.
LINGER_WATCHED_S = 8 * 3600.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Browser(StreamingResponse):
    """The stream of what happens (server-sent events) to one browser; ``stale`` when it needs the whole state first."""

    def __init__(self, browsers: set[Browser]) -> None:
        super().__init__(self._blocks(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.stale = True
        self._browsers = browsers
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_BLOCKS)

    def put(self, block: bytes) -> None:
        """Queue a block; a browser that is too slow loses what waits, and is stale."""
        try:
            self._queue.put_nowait(block)
        except asyncio.QueueFull:
            self.stale = True
            while not self._queue.empty():
                self._queue.get_nowait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the browser leaves or takes nothing any more."""

        async def send_in_time(message: Message) -> None:
            await asyncio.wait_for(send(message), _STUCK_S)

        self._browsers.add(self)
        try:
            await super().__call__(scope, receive, send_in_time)
        except (asyncio.TimeoutError, ClientDisconnect):
            pass
        finally:
            self._browsers.discard(self)

    async def _blocks(self) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        while True:
            try:
                block = await asyncio.wait_for(self._queue.get(), _KEEP_ALIVE_S)
            except asyncio.TimeoutError:
                block = b": still here\n\n"
            yield block


def _encoded(updates: list[Update]) -> bytes:
    return "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in updates).encode("ascii")


class LivePage:
    """The page of one session: reads the session for all browsers, and answers what they ask.

    Args:
        hosts: the only names by which the page may be asked for; any without.
        linger_s: how long the page stays once the session is over and nobody looks.
    """

    def __init__(self, session: LiveSession, token: str, hosts: frozenset[str] | None, linger_s: float) -> None:
        self.session = session
        self.browsers: set[Browser] = set()
        self._token = token
        self._hosts = hosts
        self._linger_s = linger_s
        self._running_at = self._wanted_at = time.monotonic()
        html, style, script = ((_TEMPLATE / name).read_text(encoding="utf-8") for name in ("live.html", "live.css", "live.js"))
        self._html = html.replace("/*style*/", style).replace("/*script*/", script)
        #: By it nothing runs but the page's own script.
        self._policy = (
            f"default-src 'none'; style-src {source_hash(style)}; script-src {source_hash(script)}; img-src 'self' data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def read_until_unneeded(self) -> None:
        """Tell the browsers what happens; return when nobody needs the page any more."""
        while not self._unneeded():
            updates, whole = await run_in_threadpool(self._read, any(one.stale for one in self.browsers))
            for browser in list(self.browsers):
                if block := whole if browser.stale else updates:
                    browser.stale = False
                    browser.put(block)
            await asyncio.sleep(TICK_S if self.browsers else _IDLE_TICK_S)

    def _read(self, with_snapshot: bool) -> tuple[bytes, bytes]:
        updates = _encoded(self.session.read())
        return updates, _encoded(self.session.snapshot()) if with_snapshot else b""

    def _unneeded(self) -> bool:
        now = time.monotonic()
        if not self.session.over:
            self._running_at = self._wanted_at = now
        elif self.browsers:
            self._wanted_at = now
        gone = self.session.status == "discarded" or not self.session.metadata.is_dir()
        return gone or now - self._running_at > LINGER_WATCHED_S or now - self._wanted_at > self._linger_s

    def app(self) -> ASGIApp:
        """Return the application."""
        routes = [
            Route("/{token}/", self._show),
            Route("/{token}/events", self._events),
            Route("/{token}/picture/{name:path}", self._picture),
            *(
                Route(f"/{{token}}/{name}", partial(self._change, change), methods=["POST"])
                for name, change in (("note", self._note), ("answer", self._answer), ("stop", self._stop))
            ),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
        app.router.redirect_slashes = False

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            answer = app if self._may_ask(Request(scope)) else PlainTextResponse("not found", 404)
            await answer(scope, receive, send)

        return guarded

    def _may_ask(self, request: Request) -> bool:
        token = request.scope["path"].lstrip("/").partition("/")[0]
        known = hmac.compare_digest(token.encode("utf-8"), self._token.encode("utf-8"))
        return known and (self._hosts is None or request.url.hostname in self._hosts)

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self._html, headers={"Content-Security-Policy": self._policy})

    async def _events(self, request: Request) -> Response:
        if len(self.browsers) >= MAX_CLIENTS:
            raise HTTPException(503, f"{MAX_CLIENTS} browsers look already")
        return Browser(self.browsers)

    async def _picture(self, request: Request) -> Response:
        found = await run_in_threadpool(self.session.picture, str(request.path_params["name"]))
        if found is None:
            raise HTTPException(404, "no such picture")
        return FileResponse(found[0], media_type=found[1], headers={"Content-Security-Policy": "default-src 'none'; sandbox"})

    # -- what changes something --------------------------------------------------------------------------------------

    async def _change(self, change: Callable[[dict[str, Any]], Awaitable[None]], request: Request) -> Response:
        # Browsers name the origin of what they post: only the page itself may change something.
        if request.headers.get("origin") != f"http://{request.headers.get('host')}":
            raise HTTPException(403, "another origin may not do that")
        await change(await _body(request))
        return JSONResponse({"taken": True})

    async def _note(self, body: dict[str, Any]) -> None:
        text = _text(body, "text").strip()
        if not text:
            raise HTTPException(400, "the note is empty")
        await self._hand_over(type="note", text=text)

    async def _answer(self, body: dict[str, Any]) -> None:
        ident, text, question = _text(body, "question"), _text(body, "text"), self.session.question
        if question is None or question["id"] != ident:
            raise HTTPException(409, "the question has been answered already")
        if question.get("kind") == "lines":
            text = text.rstrip("\n") + "\n" if text.strip() else ""
        else:
            text = " ".join(text.splitlines())
        await self._hand_over(type="answer", question=ident, text=text)

    async def _stop(self, body: dict[str, Any]) -> None:
        """Stop once for each press that somebody meant: two browsers that press for the same reason are one Ctrl-C."""
        session = self.session
        if body.get("stops") != session.stops:
            raise HTTPException(409, "somebody has pressed it meanwhile")
        session.stops += 1
        try:
            await self._hand_over(type="stop")
        except HTTPException:
            session.stops -= 1
            raise

    async def _hand_over(self, **message: str) -> None:
        if self.session.over:
            raise HTTPException(409, "the session is over")
        try:
            taken = await run_in_threadpool(hand_over, self.session.folder, _TAKEN_S, **message)
        except OSError as error:
            raise HTTPException(503, f"the session folder cannot be written: {error.strerror}") from None
        if not taken:
            raise HTTPException(503, f"the session did not take it within {_TAKEN_S:g} s; its helper process may be gone")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"problem": error.detail}, error.status_code, error.headers)


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    try:
        async for block in request.stream():
            data += block
            if len(data) > MAX_BODY_BYTES:
                raise HTTPException(413, "that is too long")
    except ClientDisconnect:
        raise HTTPException(400, "the request ended too early") from None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "a JSON object is expected")
    return found


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise HTTPException(400, f"{key}: a text is expected")
    # What the session writes is UTF-8, which has no lone surrogates.
    return value.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\0", "")


def main(args: Sequence[str]) -> int:
    """Serve one session until nobody needs its page any more; what that takes comes in one line of JSON on stdin."""
    os.chdir(Path(sys.executable).anchor or os.sep)
    given = json.loads(sys.stdin.buffer.readline())
    step_back()
    if sys.platform == "win32":
        listening = socket.fromshare(bytes.fromhex(given["shared_socket"]))
    else:
        listening = socket.socket(fileno=given["socket"])
    hosts = _LOOPBACK if listening.getsockname()[0] in _LOOPBACK else None
    page = LivePage(LiveSession(Path(given["folder"])), given["token"], hosts, given["linger_s"])
    config = uvicorn.Config(
        page.app(),
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        headers=list(_HEADERS.items()),
        ws="none",
        http="h11",
        loop="asyncio",
        timeout_graceful_shutdown=1,
        limit_concurrency=4 * MAX_CLIENTS,
    )
    server = uvicorn.Server(config)

    async def until_unneeded() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        reading = asyncio.ensure_future(page.read_until_unneeded())
        await asyncio.wait((serving, reading), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving

    asyncio.run(until_unneeded())
    return 0
