"""``python -m pytest_openscope.views.live`` serves one session; what it needs comes in one line of JSON on its stdin."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...system import step_back


def main(args: Sequence[str]) -> int:
    """Serve until the session is over and nobody looks any more."""
    os.chdir(Path(sys.executable).anchor or os.sep)
    given = json.loads(sys.stdin.buffer.readline())
    # Only now: it costs half a second, for which nobody waits.
    from .server import LINGER_S, serve

    step_back()
    serve(Path(given["folder"]), _socket(given), given["token"], float(given.get("linger_s") or LINGER_S))
    return 0


def _socket(given: dict[str, Any]) -> socket.socket:
    if sys.platform == "win32":
        return socket.fromshare(bytes.fromhex(given["shared_socket"]))
    return socket.socket(fileno=int(given["socket"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
