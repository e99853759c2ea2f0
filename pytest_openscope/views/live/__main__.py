"""``python -m pytest_openscope.views.live`` serves one session; what it needs comes in one line of JSON on its stdin."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from ...system import step_back


def main(args: Sequence[str]) -> int:
    """Serve until the session is over and nobody looks any more."""
    os.chdir(Path(sys.executable).anchor or os.sep)
    given = json.loads(sys.stdin.buffer.readline())
    # Only now: it costs half a second, for which nobody waits.
    from .server import LINGER_S, serve

    step_back()
    if sys.platform == "win32":
        listening = socket.fromshare(bytes.fromhex(given["shared_socket"]))
    else:
        listening = socket.socket(fileno=given["socket"])
    serve(Path(given["folder"]), listening, given["token"], given.get("linger_s", LINGER_S))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
