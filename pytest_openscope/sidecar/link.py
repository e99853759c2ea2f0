"""The sidecar's end of the pipes: nudges and the greeting come in, messages go out; neither can ever hold it up."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

#: Messages kept for an experiment process that does not read; the oldest go first.
_MAX_QUEUED = 1000


class Link:
    """Talks to the experiment process over stdin and stdout.

    Attributes:
        greeting: what the experiment process said first; empty until then (see :meth:`wait_greeting`).
    """

    def __init__(self, on_nudge: Callable[[], None]) -> None:
        self.greeting: dict[str, Any] = {}
        self._on_nudge = on_nudge
        self._greeted = threading.Event()
        self._queue: deque[bytes] = deque(maxlen=_MAX_QUEUED)
        self._work = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closed = False

    def open(self) -> None:
        """Begin to listen and to talk; a terminal (a sidecar started by hand) has nothing to say."""
        if os.isatty(0):
            self._greeted.set()
            return
        threading.Thread(target=self._listen, name="nudges", daemon=True).start()
        threading.Thread(target=self._talk, name="messages", daemon=True).start()

    def wait_greeting(self, timeout_s: float) -> dict[str, Any]:
        """Return the greeting, empty when none comes."""
        self._greeted.wait(timeout_s)
        return self.greeting

    def send(self, **message: Any) -> None:
        """Queue a message; dropped when nobody is left to read it."""
        if not self._closed:
            self._idle.clear()
            self._queue.append(json.dumps(message, default=str).encode("ascii") + b"\n")
            self._work.set()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was queued is with the other side, or nobody is there."""
        return self._idle.wait(timeout_s)

    def _listen(self) -> None:
        rest = b""
        try:
            while block := os.read(0, 65536):
                if not self._greeted.is_set():
                    rest += block
                    line, newline, _ = rest.partition(b"\n")
                    if newline:
                        self._greet(line)
                self._on_nudge()
        except OSError as error:
            print(f"the pipe from the experiment broke: {error}", file=sys.stderr)
        self._greeted.set()
        self._on_nudge()

    def _greet(self, line: bytes) -> None:
        try:
            greeting = json.loads(line)
        except ValueError:
            greeting = {}
        if isinstance(greeting, dict):
            self.greeting = greeting
        self._greeted.set()

    def _talk(self) -> None:
        while not self._closed:
            self._work.wait()
            self._work.clear()
            while self._queue:
                try:
                    self._write(self._queue.popleft())
                except OSError:
                    self._closed = True
                    self._queue.clear()
            self._idle.set()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]
