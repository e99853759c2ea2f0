"""``openscope://127.0.0.1:<port>``: the scripted peer of a dry run."""

from __future__ import annotations

import socket
from typing import Any

from serial.urlhandler import protocol_socket


class Serial(protocol_socket.Serial):  # type: ignore[misc]
    """pyserial's port over a socket, without the 0.3 s that it waits at each close for servers that take one client."""

    _socket: Any

    def from_url(self, url: str) -> tuple[str, int]:
        """Return host and port."""
        host, port = super().from_url(url.replace("openscope://", "socket://", 1))
        return str(host), int(port)

    def close(self) -> None:
        """Hang up."""
        channel, self._socket, self.is_open = self._socket, None, False
        if channel is None:
            return
        try:
            channel.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        channel.close()
