"""The wire between the PCs of one session: one JSON object a line over TCP, with limits on time and size everywhere."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from dataclasses import dataclass, fields
from typing import Any

#: A longer line is no message of this protocol, whoever sends it.
MAX_LINE_BYTES = 256 * 1024
#: What is sent to somebody who does not read; then the connection is given up.
MAX_UNREAD_BYTES = 4 * 1024 * 1024
#: How long a wait in the main thread may last before Python looks for Ctrl-C (on Windows nothing else lets it look).
SLICE_S = 0.1
#: A node that leaves waits so long for the other side to have read its last words.
LINGER_S = 1.0
MAX_TEXT_CHARS = 500
_NAME_CHARS = 80
_CHUNK_BYTES = 64 * 1024
#: The system finds out within half a minute that a PC was switched off; not every system has all of these.
_TCP_OPTIONS = (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

_CLOSED = "it closed the connection"


class Gone(Exception):  # noqa: N818 - what happened, not whose fault it was
    """A connection has ended: closed, broken, or not read any more."""


class Garbage(Exception):  # noqa: N818
    """Somebody sent what is no message of the protocol."""


@dataclass(frozen=True)
class Node:
    """One PC of the session, as all others see it.

    ``host`` is its name, or the address of one that only takes part in the handshake. ``state`` is ``preparing``, ``ready``
    (waits for the common start), ``acquiring``, ``ended``, ``silent`` (says nothing any more), ``lost`` (its connection broke
    before it had ended) or ``unknown`` (runs the launcher; or the master that told of it has left). ``fault`` is ``failed`` or
    ``stopped`` once its session does not go on as it should, and ``reason`` says why. ``outcome`` is known once it has ended.
    """

    name: str
    role: str = "slave"
    host: str = ""
    program: str = "launcher"
    state: str = "unknown"
    fault: str = ""
    reason: str = ""
    outcome: str | None = None
    session_folder: str = ""

    @property
    def is_over(self) -> bool:
        """Nothing more will be heard of it."""
        return self.state in ("ended", "lost", "silent", "unknown")

    @classmethod
    def from_json(cls, data: Any) -> Node:
        """Read a node from a message; raises ``Garbage``."""
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise Garbage("it sent a node without a name")
        known = {one.name: short(data[one.name], MAX_TEXT_CHARS) for one in fields(cls) if data.get(one.name) is not None}
        return cls(**{**known, "name": short(data["name"])})


class Channel:
    """One connection that is never waited for: lines in, lines out."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.host = "?"
        self._in = bytearray()
        self._out = bytearray()
        with contextlib.suppress(OSError):  # broken already: the first message tells
            self.host = str(connection.getpeername()[0])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _TCP_OPTIONS:
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, or keep what the network does not take for :meth:`flush`.

        Raises:
            Gone: the connection broke, or the other side has stopped reading.
        """
        self._out += json.dumps(message, separators=(",", ":")).encode("utf-8") + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what is left; raises as :meth:`send`."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out[:_CHUNK_BYTES])]
        except BlockingIOError:
            if len(self._out) > MAX_UNREAD_BYTES:
                raise Gone("it does not read any more") from None
        except ConnectionError:
            raise Gone(_CLOSED) from None
        except OSError as error:
            raise Gone(words_of(error)) from None

    def receive(self, most: int = sys.maxsize) -> list[dict[str, Any]]:
        """Return the messages that have come, none when there are none; those above ``most`` stay for the next call.

        Raises:
            Gone: the connection is closed or broke.
            Garbage: what came is no message, or is longer than one may be.
        """
        if b"\n" not in self._in:
            try:
                data = self.socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return []
            except ConnectionError:  # reset, where something that was sent to it had not been read
                raise Gone(_CLOSED) from None
            except OSError as error:
                raise Gone(words_of(error)) from None
            if not data:
                raise Gone(_CLOSED)
            self._in += data
        *lines, rest = self._in.split(b"\n", most)
        if any(len(line) > MAX_LINE_BYTES for line in (*lines, rest)):
            raise Garbage(f"it sent a message of more than {MAX_LINE_BYTES:,} bytes")
        self._in = rest
        return [_decode(line) for line in lines]

    def close(self) -> None:
        self.socket.close()

    def leave(self) -> None:
        """Close behind the last word: with something unread in it a closed socket would take that word back."""
        deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError, Gone):
            self.socket.settimeout(LINGER_S)
            self.flush()
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(_CHUNK_BYTES) and time.monotonic() < deadline:
                continue
        self.close()


def _decode(line: bytearray) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise Garbage(f"it sent no JSON object: {bytes(line[:60])!r}")
    return message


def words_of(error: OSError) -> str:
    """Return what went wrong on the network, for a sentence."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def short(value: Any, limit: int = _NAME_CHARS) -> str:
    """Return a text of somebody else's for one line of terminal and log: nothing in it moves the cursor or breaks the line."""
    text = "".join(char if char.isprintable() else "?" for char in " ".join(str(value).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."
