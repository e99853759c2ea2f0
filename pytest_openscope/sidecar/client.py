"""The experiment's end of the sidecar: starts it, wakes it, hears it, and never waits for it unless asked to.

Down the sidecar's stdin go lines: first a greeting (JSON: secrets, import paths), then an empty line per journal event, so
that the sidecar reads the journal at once. Up its stdout come JSON messages. Both are conveniences: the sidecar finds
everything else in the journal, and watches the process itself, since a forked worker can keep the pipe open.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import METADATA, Journal
from ..system import light_command, spawn_detached

if TYPE_CHECKING:
    import subprocess

SIDECAR_LOG = "sidecar.log"
#: How often a sidecar that cannot start or dies is started again.
RESTARTS = 1
_NUDGE = b"\n"


class SidecarClient:
    """One session's sidecar as its experiment process sees it.

    Start it after the journal has its ``session`` event. ``on_message`` is called in a daemon thread with each message of the
    sidecar, and with ``{"type": "restarted" | "gave_up", "reason": …}`` from here; what it raises is counted in
    ``handler_errors`` and changes nothing. In a forked child every method does nothing.

    Args:
        secrets: exact values to mask; they travel through the pipe, never over a command line or a file.
        terminal_fd: the terminal's stderr, to which the sidecar says how a session whose process died has ended; ignored
            unless it is a terminal, since a pipe's reader would wait for the sidecar.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        on_message: Callable[[dict[str, Any]], None],
        *,
        secrets: Iterable[str] = (),
        terminal_fd: int | None = None,
        start: bool = True,
    ) -> None:
        self.folder = folder
        self.on_message = on_message
        self.pid: int | None = None
        self.memory_mb: float | None = None
        self.restarts = 0
        self.gave_up = ""
        self.handler_errors = 0
        self.mirror: dict[str, Any] | None = None
        self.reports: list[dict[str, Any]] = []
        self.reports_left: int | None = None
        self._secrets = list(secrets)
        self._terminal_fd = terminal_fd
        self._started_at = 0.0
        self.ready_after_s: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._input: int | None = None
        self._input_id: tuple[int, int] | None = None
        self._leaving = False
        self._ready, self._done = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        if start:
            self.start()
        journal.nudge = self.nudge

    @property
    def state(self) -> str:
        """``starting``, ``ready``, ``done``, ``gave_up`` or ``off`` (not started, or let go)."""
        if self.gave_up:
            return "gave_up"
        if self._done.is_set():
            return "done"
        if self._process is None:
            return "off"
        return "ready" if self._ready.is_set() else "starting"

    def start(self) -> bool:
        """Start the sidecar; False when the system cannot create the process even at the second attempt."""
        while True:
            try:
                self._spawn()
                return True
            except OSError as error:
                if not self._may_restart(f"it cannot be started: {error}"):
                    return False

    def _spawn(self) -> None:
        import subprocess

        arguments = ["--folder", str(self.folder.absolute())]
        self._started_at = time.monotonic()
        with open(self.folder / METADATA / SIDECAR_LOG, "ab") as log:
            command = light_command("pytest_openscope.sidecar.__main__", arguments)
            process = spawn_detached(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._process, self.pid = process, process.pid
        name = "openscope-sidecar"
        threading.Thread(target=self._converse, args=(process,), name=name, daemon=True).start()

    def _converse(self, process: subprocess.Popen[bytes]) -> None:
        """Greet the sidecar, hand on what it says, and see to it when it dies."""
        try:
            self._greet(process)
            for line in _lines(process):
                self._handle(line)
        except (OSError, ValueError):
            pass  # The pipe broke: what that means is settled below.
        if self._process is not process:
            return
        code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self._leaving or self._done.is_set():
            return
        self._close_input()
        if self._may_restart(f"it ended unexpectedly with code {code}"):
            self.start()

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        """Send what the sidecar needs first; it may block until the sidecar reads, hence in this thread."""
        terminal = _terminal_name(self._terminal_fd)
        greeting = {"type": "hello", "secrets": self._secrets, "pid": os.getpid(), "terminal": terminal}
        data = memoryview(json.dumps(greeting).encode("ascii") + b"\n")
        assert process.stdin is not None
        fd = process.stdin.fileno()
        while data:
            data = data[os.write(fd, data) :]
        self._open_nudges(fd)

    def _handle(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        kind = message.get("type")
        if kind == "ready":
            self.memory_mb = message.get("memory_mb")
            self.pid = message.get("pid", self.pid)
            self.ready_after_s = time.monotonic() - self._started_at
            self._ready.set()
        elif kind == "mirror":
            self.mirror = message
        elif kind == "report":
            self.reports.append(message)
        elif kind == "reports":
            self.reports_left = message.get("left")
        self._tell(message)
        if kind == "done":
            self._done.set()

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self.on_message(message)
        except Exception:
            # A handler that fails must not take the conversation with it.
            self.handler_errors += 1

    def _may_restart(self, reason: str) -> bool:
        if self._leaving:
            return False
        if self.restarts >= RESTARTS:
            self.gave_up = reason
            self._ready.set()
            self._done.set()
            self._tell({"type": "gave_up", "reason": reason})
            return False
        self.restarts += 1
        self._ready.clear()
        self._tell({"type": "restarted", "reason": reason})
        return True

    def _open_nudges(self, fd: int) -> None:
        _set_nonblocking(fd)
        facts = os.fstat(fd)
        with self._lock:
            self._input, self._input_id = fd, (facts.st_dev, facts.st_ino)

    def nudge(self) -> None:
        """Wake the sidecar; a full pipe wakes it as well, so that the byte can be dropped."""
        fd = self._input
        if fd is None:
            return
        try:
            # A step may have closed all descriptors and opened a file of its own under this number.
            facts = os.fstat(fd)
            if (facts.st_dev, facts.st_ino) == self._input_id:
                os.write(fd, _NUDGE)
        except OSError:
            return

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the sidecar holds its lock and watches this process."""
        return self._ready.wait(timeout_s) and not self.gave_up

    def wait_done(self, timeout_s: float) -> bool:
        """After the journal's ``ended``: wait until the sidecar has nothing more to say; False when the time is up."""
        return self._done.wait(timeout_s) and not self.gave_up

    def goodbye(self) -> None:
        """Let the sidecar finish by itself; call it after the journal's ``bye``."""
        self._leaving = True
        self._close_input()
        process = self._process
        if process is not None and process.poll() is None:
            # It lives on by design; Popen's finalizer would warn that it does.
            process.returncode = 0

    def _close_input(self) -> None:
        with self._lock:
            self._input = None
            process = self._process
        if process is not None and process.stdin is not None:
            try:
                process.stdin.close()
            except OSError:
                return

    def _forget(self) -> None:
        """In a forked child: neither wake nor hold the sidecar."""
        process, self._process = self._process, None
        self._input, self._leaving = None, True
        self._lock = threading.Lock()
        if process is None:
            return
        process.returncode = 0
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    os.close(stream.fileno())
                except (OSError, ValueError):
                    continue


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield what the sidecar says, read from the descriptor itself.

    A daemon thread that holds the lock of a buffered stream is a fatal error when the interpreter shuts down.
    """
    assert process.stdout is not None
    rest = b""
    while block := os.read(process.stdout.fileno(), 65536):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _terminal_name(fd: int | None) -> str:
    """Return the device of a terminal, empty for anything else and on Windows."""
    if sys.platform == "win32" or fd is None:
        return ""
    try:
        return os.ttyname(fd)
    except OSError:
        return ""


def _set_nonblocking(fd: int) -> None:
    if sys.platform != "win32" or sys.version_info >= (3, 12):
        os.set_blocking(fd, False)
        return
    import ctypes
    import msvcrt

    no_wait = ctypes.c_ulong(1)
    ctypes.windll.kernel32.SetNamedPipeHandleState(ctypes.c_void_p(msvcrt.get_osfhandle(fd)), ctypes.byref(no_wait), None, None)
