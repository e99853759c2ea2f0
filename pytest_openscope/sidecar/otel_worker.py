"""The process that sends sessions to an OpenTelemetry collector: from their own files, each from where the last batch ended.

``main([job])`` takes the job as JSON: ``session_folder`` and ``otel`` (the settings). A line on stdin says that this session is
over; the end of stdin ends the process at once. Reports go to stdout, one JSON object a line.

How far a session is sent stands in its note in the rig's state directory, written after each batch that the collector has
accepted: a kill at any moment loses nothing. Where it hits between the collector's answer and the note, that one batch is sent
again, with the same ``log.record.uid``, span ids and times.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..log import read_next
from ..records import METADATA
from ..system import FileLock, Reporter, Retry, read_json, step_back, write_json
from .notes import notes
from .otel import forget, note_of
from .otel_export import Collector, OutageError, SessionData, steps_of
from .reconstruct import SessionView
from .samples import RESOURCE_USAGE, read_samples

_POLL_S = 0.5
#: How often other sessions' notes are looked for.
_LOOK_S = 5.0
#: Between two attempts with the session over, and a bounded time left.
_RETRY_AT_THE_END_S = 1.0


class Stream:
    """What one session owes: its log, its samples, its steps; held by one process at a time.

    Attributes:
        done: everything is sent.
        drained: nothing can be sent at the moment.
        told: it was said that its files cannot be read.
    """

    def __init__(self, note: Path, lock: FileLock, state: dict[str, Any], settings: dict[str, Any]) -> None:
        self.note, self.lock, self.state = note, lock, state
        self.signals = settings["signals"]
        self.names_people = settings["include_subject_user"]
        self.folder = Path(state["session_folder"])
        self.view = SessionView(self.folder)
        self.data: SessionData | None = None
        self.drained = self.told = False
        self.done = bool(state.get("done"))

    def turn(self, collector: Collector, own: bool, over: bool) -> int:
        """Send the next batch of each kind; return how many items were accepted.

        Args:
            own: it is the session for which this process was started; ``over`` tells that it has ended.

        Raises:
            OutageError: the collector takes nothing; what it took before is on record.
            OSError: a file of the session cannot be read.
        """
        self.view.read()
        if self.view.session is None:
            self.drained = not own
            self.folder.stat()
            return 0
        if self.data is None:
            self.data = SessionData(self.view, self.names_people)
        # Of an earlier session nobody but its own sidecar knows when its log is complete.
        complete = self.view.ended is not None and (over if own else self.view.finished)
        due = {"logs": self._logs, "metrics": self._samples, "traces": self._spans}
        accepted = 0
        for signal in self.signals:
            items = due[signal](self.data, complete)
            if items:
                build = self.data.metrics if signal == "metrics" else list
                count = collector.send(signal, [item for item, _ in items], build)
                self._keep(**items[count - 1][1])
                accepted += count
        self.drained = accepted == 0
        if complete and self.drained:
            self.done = True
            self._keep(done=True)
        return accepted

    def _logs(self, data: SessionData, complete: bool) -> list[tuple[Any, dict[str, Any]]]:
        """Return what can be sent next, each with what the note says once the collector has it."""
        if not self.view.log_path.exists():
            return []
        found, end = read_next(self.view.log_path, self.state["log"], most=500, complete=complete)
        if not found:
            self.state["log"] = end
        ends = [*(entry.offset for entry in found[1:]), end]
        return [(data.log_record(entry), {"log": after}) for entry, after in zip(found, ends, strict=False)]

    def _samples(self, data: SessionData, complete: bool) -> list[tuple[Any, dict[str, Any]]]:
        found = read_samples(self.folder / METADATA / RESOURCE_USAGE, self.state["samples"])
        return [(sample, {"samples": end}) for sample, end in islice(found, 100)]

    def _spans(self, data: SessionData, complete: bool) -> list[tuple[Any, dict[str, Any]]]:
        sent = list(self.state["spans"])
        found: list[tuple[Any, dict[str, Any]]] = []
        for name, span in map(data.span, steps_of(self.view)):
            if name not in self.state["spans"] and len(found) < 200:
                sent = [*sent, name]
                found.append((span, {"spans": sent}))
        return found

    def _keep(self, **done: Any) -> None:
        self.state.update(done)
        write_json(self.note, self.state)


class Worker:
    """Sends this session as it goes, and what earlier ones of the rig owe."""

    def __init__(self, job: dict[str, Any], reporter: Reporter) -> None:
        self.tell = reporter.send
        self.settings = job["otel"]
        view = SessionView.of(Path(job["session_folder"]))
        self.own_note = note_of(view.state_directory, view.uuid)
        self.collector = Collector(self.settings, lambda text: self.tell(warn=text), lambda: self.tell(alive=True))
        self.wake = threading.Event()
        self.over = False
        self.streams: dict[Path, Stream] = {}
        self._retry = Retry(1.0, 30.0, urgent_s=_RETRY_AT_THE_END_S)
        self._looked = -_LOOK_S

    def run(self) -> None:
        """Send for ever: the end of stdin ends the process."""
        while True:
            self._look()
            accepted, problem = 0, ""
            try:
                for stream in list(self.streams.values()):
                    self.tell(alive=True)
                    accepted += self._turn(stream)
                self._retry.succeeded()
            except OutageError as outage:
                problem = str(outage)
                self._retry.failed(urgent=self.over)
            own = self.streams.get(self.own_note)
            settled = own is not None and own.done and all(stream.drained for stream in self.streams.values())
            self.tell(settled=settled, problem=problem, accepted=accepted)
            if not accepted or problem:
                self.wake.wait(self._retry.delay_s or _POLL_S)
                self.wake.clear()

    def finish(self, _: bytes) -> None:
        """Hear that the session is over."""
        self.over = True
        self.wake.set()

    def _turn(self, stream: Stream) -> int:
        accepted, own = 0, stream.note == self.own_note
        try:
            accepted = 0 if stream.done else stream.turn(self.collector, own, self.over)
        except OSError as error:
            # A log that another program holds for a moment; a folder that was taken away.
            stream.drained = True
            if not stream.folder.is_dir() and stream.folder.parent.is_dir():
                self.tell(warn=f"{stream.folder} is gone, and with it what was not sent")
                stream.done = True
            elif not stream.told:
                stream.told = True
                self.tell(warn=f"{stream.folder.name} cannot be read: {error.strerror or error}")
        if stream.done:
            stream.drained = True
            if not own:
                # Nothing is owed any more.
                del self.streams[stream.note]
                stream.lock.release()
                forget(stream.note)
        return accepted

    def _look(self) -> None:
        """Take up this session, and others of which something is owed and that no other process sends."""
        if time.monotonic() - self._looked < (_LOOK_S if self.own_note in self.streams else _POLL_S):
            return
        self._looked = time.monotonic()
        for path in (self.own_note, *(path for path, _ in notes(self.own_note.parent))):
            lock = FileLock(path.with_suffix(".lock"))
            if path in self.streams or not path.exists() or not lock.acquire():
                continue
            state = read_json(path)
            if state is None:
                lock.release()
            else:
                self.streams[path] = Stream(path, lock, state, self.settings)


def main(args: Sequence[str]) -> int:
    """Send what the session of ``args[0]`` and earlier ones owe; return only after an error of the program itself."""
    reporter = Reporter()
    with reporter.crashes_told():
        step_back()
        worker = Worker(json.loads(args[0]), reporter)
        reporter.listen(worker.finish)
        worker.run()
    return 3
