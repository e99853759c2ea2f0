"""Starts the process that serves the live page; the experiment opens its socket, so that its address is known at once."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...records import METADATA
from ...system import light_command, spawn_detached

LIVE_LOG = "live_page.log"
LINGER_S = 60.0
_LOOPBACK = "127.0.0.1"
_NEEDED = ("starlette", "uvicorn")
#: Where these lie is looked up: the server is started without the folders of the experiment, whose modules may be named alike.
_IMPORTED = (*_NEEDED, "anyio", "idna", "h11", "click", "typing_extensions", "exceptiongroup", "rich")


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``[[HOST:]PORT]``: loopback without a host, any free port without one.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = text.strip().rpartition(":")
    if text.strip() and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no port")
    return host.strip("[]") or _LOOPBACK, int(port or 0)


def missing_packages() -> list[str]:
    """Return what the page needs and is not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


class LiveServer:
    """The live page of one session, as its experiment process sees it.

    Attributes:
        url: where it is, with the token: for the operator's eyes only.
        is_local: nobody on another computer can reach it.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._token = secrets.token_urlsafe(32)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            if sys.platform == "win32":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(128)
        except OSError:
            self._socket.close()
            raise
        bound = self._socket.getsockname()
        found = ipaddress.ip_address(str(bound[0]).partition("%")[0])
        self.is_local = found.is_loopback
        name = socket.gethostname() if found.is_unspecified else f"[{found}]" if found.version == 6 else str(found)
        self.url = f"http://{name}:{bound[1]}/{self._token}/"

    def start(self, folder: Path, on_end: Callable[[int], None], linger_s: float = LINGER_S) -> int:
        """Start the process and return its pid; ``on_end(code)`` is called in a thread when it ends before this one.

        Args:
            linger_s: how long the page stays once the session is over and nobody looks.

        Raises:
            OSError: the process cannot be created.
        """
        options: dict[str, Any] = {} if sys.platform == "win32" else {"pass_fds": (self._socket.fileno(),)}
        command = light_command("pytest_openscope.views.live.server", [], _folders_of(_IMPORTED))
        with open(folder / METADATA / LIVE_LOG, "ab") as log:
            process = spawn_detached(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, **options)
        assert process.stdin is not None
        if sys.platform == "win32":
            handed: dict[str, Any] = {"shared_socket": self._socket.share(process.pid).hex()}
        else:
            handed = {"socket": self._socket.fileno()}
        given = {"folder": str(folder.absolute()), "token": self._token, "linger_s": linger_s, **handed}
        with process.stdin as stream:
            stream.write(json.dumps(given).encode("ascii") + b"\n")
        self.close()
        threading.Thread(target=lambda: on_end(process.wait()), name="openscope-live", daemon=True).start()
        return process.pid

    def close(self) -> None:
        """Close this process's end."""
        self._socket.close()


def _folders_of(packages: tuple[str, ...]) -> list[str]:
    """Return the folders that the packages are installed in."""
    specs = [importlib.util.find_spec(name) for name in packages]
    files = [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
    folders = [file.parents[1] if file.name == "__init__.py" else file.parent for file in files]
    return list(dict.fromkeys(map(str, folders)))
