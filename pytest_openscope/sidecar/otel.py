"""Keeps the process going that sends the session to an OpenTelemetry collector (:mod:`.otel_worker`), and never waits for it.

What is not sent yet is in the session's own files. A note in the rig's state directory (``otel/SESSION.json``) says how much of
them the collector has accepted; it stays while anything is owed, and the worker of the rig's next session goes on from there.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING, Any

from ..records import Journal, Mistake
from ..system import light_command, lines_of, remove_file, spawn_detached, write_json
from .reconstruct import SessionView

if TYPE_CHECKING:
    from ..config import OtelSettings

LOGGER = "pytest_openscope.otel"
#: Folder in the rig's state directory with a note per session of which something is owed.
OWED = "otel"
#: Name of the part of the sidecar's work that is done when all is sent.
SENT = "otel sent"
_INSTALL = 'pip install "pytest-openscope[otel]"'
_WORKER = "pytest_openscope.sidecar.otel_worker"
_RESTART_S = (1.0, 5.0, 30.0)
_STOP_S = 0.5
_LOOK_S = 0.05


def check_otel(settings: OtelSettings | None, dry_run: bool, where: str) -> list[Mistake]:
    """Return what is missing of what the ``otel`` block needs."""
    if settings is None or (dry_run and not settings.dry_runs):
        return []
    try:
        found = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found:
        return []
    return [Mistake(where, "needs the OpenTelemetry SDK, which is not installed", _INSTALL, "otel")]


def note_of(state_directory: Path, session_uuid: str) -> Path:
    """Where stands how much of a session has been sent."""
    return state_directory / OWED / f"{session_uuid}.json"


def owe(view: SessionView) -> None:
    """Leave a note of a session of which nothing has been sent yet; one that is there stays as it is.

    Raises:
        OSError: the state directory cannot be written.
    """
    assert view.state_directory is not None
    note = note_of(view.state_directory, view.uuid)
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"session_folder": str(view.folder), "log": 0, "samples": 0, "spans": []})


def forget(note: Path) -> None:
    """Take a note away, and what a worker left that was killed while it wrote: nothing is owed."""
    with contextlib.suppress(OSError):
        for path in (note, note.with_suffix(".lock"), *note.parent.glob(f".{glob.escape(note.name)}.*.tmp")):
            remove_file(path)


class _Worker:
    """One worker process; a thread takes its reports, since pipes cannot be polled on Windows."""

    def __init__(self, command: list[str]) -> None:
        self.process: Popen[bytes] = spawn_detached(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        self.reports: deque[dict[str, Any]] = deque()
        self.heard_mono = time.monotonic()
        threading.Thread(target=self._listen, name="otel", daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        # A worker that is killed may leave half a report.
        with contextlib.suppress(OSError, ValueError):
            for line in lines_of(self.process.stdout.fileno()):
                self.heard_mono = time.monotonic()
                self.reports.append(json.loads(line))

    def finish(self) -> None:
        """Tell it that the session is over."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self.process.stdin.fileno(), b"finish\n")

    def stop(self) -> None:
        """End it: every moment is as good as a kill."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        until = time.monotonic() + _STOP_S
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
        self.process.kill()
        self.process.wait()


class OtelSupervisor:
    """Keeps one worker at what this session, and earlier ones of the rig, owe to the collector.

    Args:
        say: gets level, text, logger and whether the operator should see it.
    """

    def __init__(self, view: SessionView, journal: Journal, say: Callable[[str, str, str, bool], None]) -> None:
        self.view, self.journal, self.say = view, journal, say
        owe(view)
        self._settings = dict(view.value("otel"))
        self._worker: _Worker | None = None
        self._deaths = 0
        self._start_at = 0.0
        self._finishing = self._warned = self.settled = False

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.process.pid if self._worker is not None else None

    def tick(self) -> None:
        """Take the worker's reports, and replace one that died or hangs; called about every 0.2 s."""
        worker, now = self._worker, time.monotonic()
        if worker is None:
            if now >= self._start_at:
                self._start()
            return
        gone = worker.process.poll() is not None
        while worker.reports:
            self._hear(worker.reports.popleft())
        hang_s = 2 * float(self._settings.get("timeout_s") or 10.0) + 20.0
        if gone or now - worker.heard_mono > hang_s:
            worker.stop()
            self._worker = None
            self._start_at = now + _RESTART_S[min(self._deaths, len(_RESTART_S) - 1)]
            self._deaths += 1

    def finish(self) -> None:
        """Go on for ``finish_s`` after the end of the session; what is owed then is left to the rig's next session."""
        self._finishing = True
        if self._worker is not None:
            self._worker.finish()
        until = time.monotonic() + float(self._settings.get("finish_s") or 0.0)
        while not self.settled and time.monotonic() < until:
            self.tick()
            time.sleep(_LOOK_S)
        if not self.settled:
            text = "OpenTelemetry: not everything is sent; the next session on this rig sends the rest"
            print(f"WARNING {LOGGER}: {text}", file=sys.stderr, flush=True)
        if self._worker is not None:
            self._worker.stop()
        if self.settled and self.view.state_directory is not None:
            # In this order: without the note, a sidecar that is started again would send all of it once more.
            self.journal.write("witness_done", part=SENT)
            forget(note_of(self.view.state_directory, self.view.uuid))

    def _start(self) -> None:
        job = {"session_folder": str(self.view.folder), "otel": self._settings}
        self._worker = _Worker(light_command(_WORKER, [json.dumps(job)], [path for path in sys.path if path]))
        if self._finishing:
            self._worker.finish()

    def _hear(self, report: dict[str, Any]) -> None:
        endpoint = self._settings.get("endpoint")
        if "warn" in report:
            self.say("WARNING", f"OpenTelemetry: {report['warn']}", LOGGER, False)
        elif "crash" in report:
            self.say("ERROR", f"OpenTelemetry: the process that sends failed\n{report['crash']}", LOGGER, False)
        elif "settled" in report:
            self.settled, problem = bool(report["settled"]), str(report["problem"])
            if problem and not self._warned:
                self._warned = True
                text = f"OpenTelemetry: {endpoint} {problem}. The experiment goes on; the rest is sent when it answers again"
                self.say("WARNING", text, LOGGER, True)
            elif not problem and self._warned and report["accepted"]:
                self._warned = False
                self.say("INFO", f"OpenTelemetry: {endpoint} answers again", LOGGER, False)
            if report["accepted"]:
                self._deaths = 0
