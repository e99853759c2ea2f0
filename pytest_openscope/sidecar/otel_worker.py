"""The process that sends sessions to an OpenTelemetry collector: from their own files, each from where the last batch ended.

``main([job])`` takes the job as JSON: ``session_folder`` and ``otel`` (the settings). A line on stdin says that this session is
over; the end of stdin ends the process, after the batch that is on its way. Reports go to stdout, one JSON object a line.

How far a session is sent stands in its note in the rig's state directory, written after each batch that the collector has
accepted: a kill at any moment loses nothing. Where it hits between the collector's answer and the note, that one batch is sent
again, with the same ``log.record.uid``, span ids and times.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..log import read_next
from ..records import METADATA
from ..system import FileLock, lines_of, read_json, step_back, write_json
from .notes import notes
from .otel import OWED, forget, note_of
from .otel_export import Collector, OutageError, SessionData, Spans, samples_of
from .reconstruct import SessionView
from .samples import RESOURCE_USAGE

_POLL_S = 0.5
#: How often other sessions' notes are looked for.
_LOOK_S = 5.0
_RETRY_S = (1.0, 2.0, 5.0, 15.0, 30.0)
#: With the session over, and a bounded time left.
_RETRY_AT_THE_END_S = 1.0
#: How long a batch that is on its way may take to be answered, and noted, once nobody is there to whom it matters.
_LAST_BATCH_S = 2.0
#: Set when the sidecar is gone.
_alone = threading.Event()


class Stream:
    """What one session owes: its log, its samples, its steps; held by one process at a time."""

    def __init__(self, note: Path, lock: FileLock, state: dict[str, Any], own: bool, settings: dict[str, Any]) -> None:
        self.note, self.lock, self.state, self.own = note, lock, state, own
        self.signals = settings["signals"]
        self.folder = Path(str(state["session_folder"]))
        self.view = SessionView(self.folder)
        self.spans = Spans()
        self.data: SessionData | None = None
        self.names_people = bool(settings.get("include_subject_user"))
        self.over = self.drained = self.told = False
        self.done = bool(state.get("done"))

    @classmethod
    def take(cls, note: Path, own: bool, settings: dict[str, Any]) -> Stream | None:
        """Return the session of a note, unless another process sends it or nothing is owed any more."""
        lock = FileLock(note.with_suffix(".lock"))
        if not lock.acquire():
            return None
        state = read_json(note)
        if state is None:
            lock.release()
            return None
        return cls(note, lock, state, own, settings)

    def turn(self, collector: Collector) -> int:
        """Send the next batch of each kind; return how many items were accepted.

        Raises:
            OutageError: the collector takes nothing; what it took before is on record.
            OSError: a file of the session cannot be read.
        """
        for event in self.view.read():
            self.spans.take(event)
        if self.view.session is None:
            self.drained = not self.own
            self.folder.stat()
            return 0
        if self.data is None:
            self.data = SessionData(self.view, self.names_people)
        # Of an earlier session nobody but its own sidecar knows when its log is complete.
        complete = self.view.ended is not None and (self.over if self.own else self.view.finished)
        senders = {"logs": self._send_logs, "metrics": self._send_metrics, "traces": self._send_traces}
        accepted = sum(0 if _alone.is_set() else senders[signal](collector, self.data, complete) for signal in self.signals)
        self.drained = accepted == 0
        if complete and self.drained and not _alone.is_set():
            self.done = True
            self._keep(done=True)
        return accepted

    def _send_logs(self, collector: Collector, data: SessionData, complete: bool) -> int:
        path = self.view.log_path
        if not path.exists():
            return 0
        found, end = read_next(path, self.state["log"], most=500, complete=complete)
        if not found:
            self.state["log"] = end
            return 0
        count = collector.send("logs", [data.log_record(entry) for entry in found])
        self._keep(log=found[count].offset if count < len(found) else end)
        return count

    def _send_metrics(self, collector: Collector, data: SessionData, complete: bool) -> int:
        found = samples_of(self.folder / METADATA / RESOURCE_USAGE, self.state["samples"])
        if not found:
            return 0
        count = collector.send("metrics", [sample for sample, _ in found], data.metrics)
        self._keep(samples=found[count - 1][1])
        return count

    def _send_traces(self, collector: Collector, data: SessionData, complete: bool) -> int:
        sent = set(self.state["spans"])
        spans = [span for span in map(data.span, self.spans.whole(self.view)) if span[0] not in sent][:200]
        if not spans:
            return 0
        count = collector.send("traces", [span for _, span in spans])
        self._keep(spans=[*self.state["spans"], *(name for name, _ in spans[:count])])
        return count

    def _keep(self, **done: Any) -> None:
        self.state.update(done)
        write_json(self.note, self.state)


class Worker:
    """Sends this session as it goes, and what earlier ones of the rig owe."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.settings = job["otel"]
        self.folder = Path(job["session_folder"])
        view = SessionView.of(self.folder)
        assert view.state_directory is not None
        self.own_note = note_of(view.state_directory, view.uuid)
        self.notes = view.state_directory / OWED
        self.collector = Collector(self.settings, lambda text: report(warn=text), lambda: report(alive=True))
        self.orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.over = False
        self.streams: dict[Path, Stream] = {}
        self._looked = -_LOOK_S
        self._failures = 0

    def run(self) -> None:
        """Send until stdin ends."""
        while not _alone.is_set():
            self._look()
            accepted, problem = 0, ""
            try:
                for stream in list(self.streams.values()):
                    report(alive=True)
                    accepted += self._turn(stream)
                self._failures = 0
            except OutageError as outage:
                problem = str(outage)
                self._failures += 1
            own = self.streams.get(self.own_note)
            settled = own is not None and own.done and all(stream.drained for stream in self.streams.values())
            report(settled=settled, problem=problem, accepted=accepted)
            self._obey(self._pause_s(accepted))

    def _turn(self, stream: Stream) -> int:
        stream.over = self.over
        accepted = 0
        try:
            accepted = 0 if stream.done else stream.turn(self.collector)
        except OSError as error:
            # A log that another program holds for a moment; a folder that was taken away.
            stream.drained = True
            if not stream.folder.is_dir() and stream.folder.parent.is_dir():
                report(warn=f"{stream.folder} is gone, and with it what was not sent")
                stream.done = True
            elif not stream.told:
                stream.told = True
                report(warn=f"{stream.folder.name} cannot be read: {error.strerror or error}")
        if stream.done:
            stream.drained = True
            if not stream.own:
                self._drop(stream)
        return accepted

    def _drop(self, stream: Stream) -> None:
        """Take the note away: nothing is owed."""
        del self.streams[stream.note]
        stream.lock.release()
        forget(stream.note)

    def _look(self) -> None:
        """Take up this session, and others of which something is owed."""
        if time.monotonic() - self._looked < (_LOOK_S if self.own_note in self.streams else _POLL_S):
            return
        self._looked = time.monotonic()
        for path in (self.own_note, *(path for path, _ in notes(self.notes))):
            if path not in self.streams and path.exists():
                stream = Stream.take(path, path == self.own_note, self.settings)
                if stream is not None:
                    self.streams[path] = stream

    def _pause_s(self, accepted: int) -> float:
        if self._failures:
            wait_s = _RETRY_S[min(self._failures, len(_RETRY_S)) - 1]
            return min(wait_s, _RETRY_AT_THE_END_S) if self.over else wait_s
        return 0.0 if accepted else _POLL_S

    def _obey(self, wait_s: float) -> None:
        with contextlib.suppress(queue.Empty):
            self.orders.get(block=wait_s > 0, timeout=wait_s)
            self.over = True


def report(**what: Any) -> None:
    """Tell the sidecar."""
    try:
        os.write(1, json.dumps(what).encode("ascii") + b"\n")
    except OSError:
        _alone.set()


def _listen(orders: queue.SimpleQueue[bytes]) -> None:
    with contextlib.suppress(OSError):
        for line in lines_of(0):
            orders.put(line)
    _alone.set()
    orders.put(b"")  # Wakes the other thread.
    time.sleep(_LAST_BATCH_S)
    os._exit(0)


def main(args: Sequence[str]) -> int:
    """Send what the session of ``args[0]`` and earlier ones owe; return only after an error of the program itself."""
    try:
        step_back()
        worker = Worker(json.loads(args[0]))
        threading.Thread(target=_listen, args=(worker.orders,), daemon=True).start()
        worker.run()
        os._exit(0)
    except Exception:
        report(crash=traceback.format_exc()[-3000:])
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
