"""Keeps the process going that sends the session to an OpenTelemetry collector (:mod:`.otel_worker`), and never waits for it.

What is not sent yet is in the session's own files. A note in the rig's state directory (``otel/SESSION.json``) says how much of
them the collector has accepted; it stays while anything is owed, and the worker of the rig's next session goes on from there.
"""

from __future__ import annotations

import contextlib
import glob
import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import Journal, Mistake
from ..system import Retry, WorkerProcess, light_command, remove_file, write_json
from .reconstruct import SessionView

if TYPE_CHECKING:
    from ..config import OtelSettings

LOGGER = "pytest_openscope.otel"
#: Name of the part of the sidecar's work that is done when all is sent.
SENT = "otel sent"
_INSTALL = 'pip install "pytest-openscope[otel]"'
_WORKER = "pytest_openscope.sidecar.otel_worker"
_STOP_S = 0.5
_LOOK_S = 0.05
#: Tells the worker that the session is over.
_FINISH = b"finish"


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
    return state_directory / "otel" / f"{session_uuid}.json"


def forget(note: Path) -> None:
    """Take a note away, and what a worker left that was killed while it wrote: nothing is owed."""
    with contextlib.suppress(OSError):
        for path in (note, note.with_suffix(".lock"), *note.parent.glob(f".{glob.escape(note.name)}.*.tmp")):
            remove_file(path)


class OtelSupervisor:
    """Keeps one worker at what this session, and earlier ones of the rig, owe to the collector."""

    def __init__(self, view: SessionView, journal: Journal, say: Callable[[str, str, str, bool], None]) -> None:
        self.view, self.journal, self.say = view, journal, say
        self._settings: dict[str, Any] = view.value("otel")
        self._note = note_of(view.state_directory, view.uuid)
        self._worker: WorkerProcess | None = None
        self._retry = Retry(1.0, 30.0)
        self._finishing = self._warned = self._settled = False
        if not self._note.exists():
            self._note.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note, {"session_folder": str(view.folder), "log": 0, "samples": 0, "spans": []})

    def tick(self) -> None:
        """Take the worker's reports, and replace one that died or hangs; called about every 0.2 s."""
        worker, now = self._worker, time.monotonic()
        if worker is None:
            if now >= self._retry.due_mono:
                self._start()
            return
        gone = worker.process.poll() is not None
        for report in worker.take_reports():
            self._hear(report)
        if gone or now - worker.heard_mono > 2 * self._settings["timeout_s"] + 20.0:
            worker.stop(_STOP_S)
            self._worker = None
            self._retry.failed()

    def finish(self) -> None:
        """Go on for ``finish_s`` after the end of the session; what is owed then is left to the rig's next session."""
        self._finishing = True
        if self._worker is not None:
            self._worker.send(_FINISH)
        until = time.monotonic() + self._settings["finish_s"]
        while not self._settled and time.monotonic() < until:
            self.tick()
            time.sleep(_LOOK_S)
        if not self._settled:
            text = "OpenTelemetry: not everything is sent; the next session on this rig sends the rest"
            print(f"WARNING {LOGGER}: {text}", file=sys.stderr, flush=True)
        if self._worker is not None:
            self._worker.stop(_STOP_S)
        if self._settled:
            # In this order: without the note, a sidecar that is started again would send all of it once more.
            self.journal.write("witness_done", part=SENT)
            forget(self._note)

    def _start(self) -> None:
        job = {"session_folder": str(self.view.folder), "otel": self._settings}
        self._worker = WorkerProcess(light_command(_WORKER, [json.dumps(job)], [path for path in sys.path if path]))
        if self._finishing:
            self._worker.send(_FINISH)

    def _hear(self, report: dict[str, Any]) -> None:
        endpoint = self._settings["endpoint"]
        if "warn" in report:
            self.say("WARNING", f"OpenTelemetry: {report['warn']}", LOGGER, False)
        elif "crash" in report:
            self.say("ERROR", f"OpenTelemetry: the process that sends failed\n{report['crash']}", LOGGER, False)
        elif "settled" in report:
            self._settled, problem = report["settled"], report["problem"]
            if problem and not self._warned:
                self._warned = True
                text = f"OpenTelemetry: {endpoint} {problem}. The experiment goes on; the rest is sent when it answers again"
                self.say("WARNING", text, LOGGER, True)
            elif not problem and self._warned and report["accepted"]:
                self._warned = False
                self.say("INFO", f"OpenTelemetry: {endpoint} answers again", LOGGER, False)
            if report["accepted"]:
                self._retry.succeeded()
