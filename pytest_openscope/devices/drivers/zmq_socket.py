"""``driver: zmq``: a program that is spoken to over ZeroMQ (pyzmq)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

from ..peer import Script
from .base import ScriptSource, Talker

#: Kinds, and what stands at the other end in a dry run. A ROUTER, unlike a REP, may leave a question unanswered.
_KINDS = {"req": "ROUTER", "sub": "PUB", "pub": "SUB", "push": "PULL", "pull": "PUSH", "dealer": "ROUTER", "pair": "PAIR"}
#: How often that one looks whether it shall say something of itself, or end.
_LOOK_MS = 20


class ZmqDevice(Talker):
    """One socket.

    Args:
        address: ``tcp://192.168.0.7:5555``.
        kind: ``req`` (ask and be answered), ``sub`` (listen), ``pub``, ``push``, ``pull``, ``dealer``, ``pair``.
        bind: bind instead of connect.
        topic: what a ``sub`` listens for ("" for everything).
        timeout_s: longest wait for a message, in both directions.
        check_query, check_answer: what ``check()`` asks (``req`` only), and a regular expression that the answer must match.
        safe_command: text that ``safe_state()`` sends.

    Raises:
        ValueError: the kind is none of these.
    """

    def __init__(
        self,
        address: str,
        *,
        kind: str = "req",
        bind: bool = False,
        topic: str = "",
        timeout_s: float = 1.0,
        check_query: str | None = None,
        check_answer: str | None = None,
        safe_command: str | None = None,
    ) -> None:
        super().__init__(check_query, check_answer)
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(_KINDS)}")
        self.address, self.kind = address, kind
        self.timeout_s = timeout_s
        self._bind, self._topic, self._safe_command = bind, topic, safe_command
        self.socket: Any = None
        self._context: Any = None

    def open(self) -> None:
        """Create the socket; a peer that is not there yet shows in :meth:`check`, not here (so is ZeroMQ)."""
        import zmq

        self._context = zmq.Context()
        self.socket = self._context.socket(getattr(zmq, self.kind.upper()))
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(self.timeout_s * 1000))
        self.socket.setsockopt(zmq.SNDTIMEO, int(self.timeout_s * 1000))
        if self.kind == "req":
            # Without these a question that was never answered blocks the socket for good.
            self.socket.setsockopt(zmq.REQ_RELAXED, 1)
            self.socket.setsockopt(zmq.REQ_CORRELATE, 1)
        if self.kind == "sub":
            self.socket.setsockopt_string(zmq.SUBSCRIBE, self._topic)
        (self.socket.bind if self._bind else self.socket.connect)(self.address)

    def close(self) -> None:
        """Close socket and context at once; unsent messages are dropped."""
        if self.socket is not None:
            self.socket.close(0)
        if self._context is not None:
            self._context.term()

    def send(self, message: str | dict[str, Any] | list[Any]) -> None:
        """Send a text, or a mapping or list as JSON.

        Raises:
            TimeoutError: nobody took it.
        """
        text = message if isinstance(message, str) else json.dumps(message)
        with self._lock:
            self._within("take", self.socket.send_string, text)

    def receive(self) -> str:
        """Return the next message.

        Raises:
            TimeoutError: none came.
        """
        with self._lock:
            return str(self._within("send", self.socket.recv_string))

    def query(self, text: str) -> str:
        return self._ask(text, self.send, self.receive)

    def request(self, message: dict[str, Any]) -> Any:
        """Send a mapping as JSON and return the answer, parsed."""
        return json.loads(self.query(json.dumps(message)))

    def safe_state(self) -> None:
        """Send ``safe_command``, if one is declared; a ``req`` waits for the answer."""
        if self._safe_command is not None:
            (self.query if self.kind == "req" else self.send)(self._safe_command)

    def read_state(self) -> dict[str, Any]:
        return {"address": self.address, "kind": self.kind, "is_open": self.socket is not None and not self.socket.closed}

    def _within(self, verb: str, function: Any, *args: Any) -> Any:
        import zmq

        try:
            return function(*args)
        except zmq.Again:
            raise TimeoutError(f"{self.address} did not {verb} a message within {self.timeout_s:g} s") from None

    @classmethod
    def simulate(cls, options: dict[str, Any], script: ScriptSource) -> tuple[dict[str, Any], Any, str]:
        """A peer on a loopback port: the script's, or one that answers what it was told."""
        played = Script.read(script) if script else Script({"echo": True}, "echo")
        peer = _ZmqPeer(played, str(options.get("kind", "req")), bind=not options.get("bind", False))
        return {**options, "address": peer.address}, peer, f"scripted peer {played.name}"


class _ZmqPeer:
    def __init__(self, script: Script, kind: str, *, bind: bool) -> None:
        import zmq

        self._script, self._kind = script, kind
        self._context = zmq.Context()
        self._socket = self._context.socket(getattr(zmq, _KINDS[kind]))
        self._socket.setsockopt(zmq.LINGER, 0)
        if kind == "pub":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        (self._socket.bind if bind else self._socket.connect)(self.address)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"peer-{script.name}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        import zmq

        hears, tells = self._kind not in ("sub", "pull"), self._kind in ("sub", "pull", "dealer", "pair")
        due = [(time.monotonic() + every_s, every_s, text) for every_s, text in self._script.unsolicited if tells]
        # An open socket would let the context's destructor wait for ever; sockets belong to one thread.
        with self._context, self._socket:
            while not self._closed.is_set():
                if self._socket.poll(_LOOK_MS, zmq.POLLIN if hears else 0):
                    self._hear()
                for place, (at, every_s, text) in enumerate(due):
                    if time.monotonic() >= at:
                        due[place] = (at + every_s, every_s, text)
                        with contextlib.suppress(zmq.Again):
                            self._socket.send_string(text, flags=zmq.NOBLOCK)

    def _hear(self) -> None:
        parts = self._socket.recv_multipart()
        answer = self._script.answer(parts[-1].decode("utf-8", "replace"))
        if self._kind in ("req", "dealer", "pair") and answer is not None:
            self._socket.send_multipart([*parts[:-1], answer.encode("utf-8")])

    def close(self) -> None:
        self._closed.set()
        self._thread.join(1.0)
