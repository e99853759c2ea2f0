"""The launcher's side of the session handshake, byte for byte as the description of its wire protocol has it.

It is as the launcher is: blocking, one connection after the other, unknown keys of a message ignored, a mistake is an
exception. Whatever it reads is kept as the bytes that came, for the tests to look at.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any


def line(**message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("utf-8") + b"\n"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = socket.create_connection(server.getsockname())
        return left, server.accept()[0]


class Connection:
    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        connection.settimeout(timeout_s)
        self.socket = connection
        self.read: list[bytes] = []
        self._stream = connection.makefile("rb")

    def next(self) -> Any:
        data = self._stream.readline()
        if not data.endswith(b"\n"):
            raise ConnectionError("Socket closed while waiting for data")
        self.read.append(data)
        return json.loads(data.decode("utf-8"))

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


def launcher_slave(
    port: int, key: str, node_name: str, timeout_s: float = 10.0, retry_s: float = 0.05
) -> tuple[str, list[bytes]]:
    """Return the session's name and the lines that the master sent."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection = Connection(socket.create_connection(("127.0.0.1", port), timeout=timeout_s), timeout_s)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(retry_s)
    try:
        connection.socket.sendall(line(session_key=key, state="ready", role="slave", node_name=node_name))
        announcement = connection.next()
        if announcement.get("status") != "announce":
            raise RuntimeError(f"unexpected payload: {announcement}")
        if announcement.get("session_key") != key:
            raise RuntimeError("mismatched session key")
        name = announcement["session_name"]
        connection.socket.sendall(line(status="ack", session_name=name, node_name=node_name))
        completion = connection.next()
        if completion.get("status") != "complete":
            raise RuntimeError(f"no completion: {completion}")
        return name, connection.read
    finally:
        connection.close()


class LauncherMaster:
    """Listens from the moment it is made; :meth:`run` returns the lines that each slave sent."""

    def __init__(self, port: int, key: str, session_name: str, slaves: int = 1, timeout_s: float = 10.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(timeout_s)
        self._key, self._name, self._slaves, self._timeout_s = key, session_name, slaves, timeout_s

    def run(self) -> list[list[bytes]]:
        connections: list[Connection] = []
        try:
            while len(connections) < self._slaves:
                connection = Connection(self._listener.accept()[0], self._timeout_s)
                hello = connection.next()
                if hello.get("session_key") != self._key:
                    connection.socket.sendall(line(status="error", reason="session_key_mismatch"))
                    connection.close()
                elif hello.get("state") != "ready":
                    connection.socket.sendall(line(status="error", reason="invalid_state"))
                    connection.close()
                else:
                    connections.append(connection)
        finally:
            self._listener.close()
        announcement = line(
            status="announce",
            session_key=self._key,
            session_name=self._name,
            expected_slaves=self._slaves,
            master="launcher-pc",
        )
        try:
            for connection in connections:
                connection.socket.sendall(announcement)
            for connection in connections:
                answer = connection.next()
                if answer.get("status") != "ack" or answer.get("session_name") != self._name:
                    for one in connections:
                        one.socket.sendall(line(status="error", reason="a slave failed to acknowledge the session name"))
                    raise RuntimeError(f"not acknowledged: {answer}")
            for connection in connections:
                connection.socket.sendall(line(status="complete", session_name=self._name))
            return [connection.read for connection in connections]
        finally:
            for connection in connections:
                connection.close()
