"""The pipe between an experiment process and its sidecar, both ends; neither can hold up the other.

Down the sidecar's stdin goes a greeting (one line of JSON: secrets, import paths), and its end once the journal tells of the
session's; up its stdout come JSON messages. The sidecar finds everything else in the journal, and watches the process itself,
since a forked worker can keep a pipe open.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..records import METADATA
from ..system import lent_watch, light_command, lines_of, spawn_detached

SIDECAR_LOG = "sidecar.log"
#: Messages kept for an experiment process that does not read.
_MAX_QUEUED = 1000


def _spawn(folder: Path, stdout: int, *options: str, **more: Any) -> subprocess.Popen[bytes]:
    arguments = ["--folder", str(folder.absolute()), *options]
    with open(folder / METADATA / SIDECAR_LOG, "ab") as log:
        command = light_command("pytest_openscope.sidecar.loop", arguments)
        return spawn_detached(command, stdin=subprocess.PIPE, stdout=stdout, stderr=log, **more)


def _greet(process: subprocess.Popen[bytes], **greeting: Any) -> None:
    """Send what the sidecar needs first, blocking until it is read."""
    assert process.stdin is not None
    _write_all(process.stdin.fileno(), greeting)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _write_all(fd: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message, default=str).encode("ascii") + b"\n")
    while data:
        data = data[os.write(fd, data) :]


def start_finisher(folder: Path, secrets: Iterable[str] = (), alert_urls: Iterable[str] = ()) -> None:
    """Start a sidecar that finishes a session whose process is gone, and tells ``alert_urls`` of it.

    Raises:
        OSError: the process cannot be created.
    """
    process = _spawn(folder, subprocess.DEVNULL, "--finish")
    try:
        path = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
        _greet(process, secrets=sorted(secrets), alert_urls=list(alert_urls), sys_path=path)
    except OSError:
        print(f"the sidecar for {folder.name} did not take its greeting", file=sys.stderr)
    _let_go(process)
    # It outlives this process by design; Popen's finalizer would warn that it does.
    process.returncode = 0


class SidecarClient:
    """One session's sidecar as its experiment process sees it: starts it, hears it.

    Start it after the journal has its ``session`` event. ``on_message`` is called in a daemon thread with each message of the
    sidecar, and with ``{"type": "restarted" | "gave_up", "reason": …}`` from here; what it raises changes nothing.

    Args:
        secrets: exact values to mask; they travel through the pipe, never over a command line or a file.
        alert_urls: where people are told; secrets as well.
        terminal_fd: the terminal's stderr, to which the sidecar says how a session whose process died has ended; ignored
            unless it is a terminal, since a pipe's reader would wait for the sidecar.
    """

    def __init__(
        self,
        folder: Path,
        on_message: Callable[[dict[str, Any]], None],
        *,
        secrets: Iterable[str] = (),
        alert_urls: Iterable[str] = (),
        terminal_fd: int | None = None,
    ) -> None:
        self.folder = folder
        self.on_message = on_message
        self.pid: int | None = None
        self.restarted = False
        self.gave_up = ""
        self.mirror: dict[str, Any] | None = None
        self.reports_left: int | None = None
        self._greeting = {"secrets": list(secrets), "alert_urls": list(alert_urls)}
        self._terminal_fd = terminal_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = self._is_over = False
        self._done = threading.Event()
        self._greeted = threading.Event()
        self._start()

    def _start(self) -> None:
        """Start the sidecar, again where the system cannot create the process at first."""
        try:
            with lent_watch() as (handle, more):
                options = () if handle is None else ("--watch", str(handle))
                process = _spawn(self.folder, subprocess.PIPE, *options, **more)
        except OSError as error:
            self._start_again(f"it cannot be started: {error}")
            return
        self._greeted.clear()
        self._process, self.pid = process, process.pid
        threading.Thread(target=self._converse, args=(process,), name="openscope-sidecar", daemon=True).start()

    def _converse(self, process: subprocess.Popen[bytes]) -> None:
        """Greet the sidecar, hand on what it says, and see to it when it dies."""
        assert process.stdout is not None
        # Where the pipe breaks: what that means is settled below.
        with contextlib.suppress(OSError, ValueError):
            _greet(process, **self._greeting, terminal=_terminal_name(self._terminal_fd))
            self._greeted.set()
            if self._is_over:
                _let_go(process)
            for line in lines_of(process.stdout.fileno()):
                self._handle(line)
        code = process.wait()
        process.stdout.close()
        if self._leaving or self._done.is_set():
            return
        self._start_again(f"it ended unexpectedly with code {code}")

    def _handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # Something that a library printed there.
        kind = message["type"]
        if kind == "mirror":
            self.mirror = message
        elif kind == "reports":
            self.reports_left = message["left"]
        self._tell(message)
        if kind == "done":
            self._done.set()

    def _tell(self, message: dict[str, Any]) -> None:
        # A handler that fails must not take the conversation with it.
        with contextlib.suppress(Exception):
            self.on_message(message)

    def _start_again(self, reason: str) -> None:
        """Start a second sidecar; a third one would hardly do better."""
        if self._leaving:
            return
        if self.restarted:
            self.gave_up = reason
            self._done.set()
            self._tell({"type": "gave_up", "reason": reason})
            return
        self.restarted = True
        self._tell({"type": "restarted", "reason": reason})
        self._start()

    def session_over(self) -> None:
        """Let the sidecar look into the journal at once; call it after ``ended`` or ``discarded``."""
        self._is_over = True
        if self._process is not None and self._greeted.is_set():
            _let_go(self._process)

    def wait_done(self, timeout_s: float) -> bool:
        """After :meth:`session_over`: wait until the sidecar has nothing more to say; False when the time is up."""
        return self._done.wait(timeout_s) and not self.gave_up

    def goodbye(self) -> None:
        """Let the sidecar finish by itself; call it after the journal's ``bye``."""
        self._leaving = True
        process = self._process
        if process is not None and process.poll() is None:
            # It lives on by design; Popen's finalizer would warn that it does.
            process.returncode = 0


def _terminal_name(fd: int | None) -> str:
    """Return the device of a terminal, empty for anything else and on Windows."""
    if sys.platform == "win32" or fd is None:
        return ""
    try:
        return os.ttyname(fd)
    except OSError:
        return ""


class Link:
    """The sidecar's end, on its stdin and stdout.

    Attributes:
        greeting: what the experiment process said first; empty until then (see :meth:`wait_greeting`).

    Args:
        on_end: called, in a thread, when the other side says that the session is over, or is gone.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.greeting: dict[str, Any] = {}
        self._greeted = threading.Event()
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue(_MAX_QUEUED)
        threading.Thread(target=self._listen, name="greeting", daemon=True).start()
        threading.Thread(target=self._talk, name="messages", daemon=True).start()

    def wait_greeting(self, timeout_s: float) -> dict[str, Any]:
        """Return the greeting, empty when none comes."""
        self._greeted.wait(timeout_s)
        return self.greeting

    def send(self, **message: Any) -> None:
        """Queue a message; dropped when too many wait already."""
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(message)

    def flush(self, timeout_s: float) -> None:
        """Wait until what was queued is with the other side, or nobody is there."""
        deadline = time.monotonic() + timeout_s
        while self._messages.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _listen(self) -> None:
        lines = lines_of(0)
        try:
            self.greeting = json.loads(next(lines, b"{}"))
        except (OSError, ValueError) as error:
            print(f"the pipe from the experiment broke: {error}", file=sys.stderr)
        self._greeted.set()
        with contextlib.suppress(OSError):
            for _ in lines:
                continue
        self._on_end()

    def _talk(self) -> None:
        while True:
            message = self._messages.get()
            with contextlib.suppress(OSError):
                _write_all(1, message)
            self._messages.task_done()
