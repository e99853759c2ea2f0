"""What the live page shows, read from what a session writes while it runs: journals, session log, resource samples."""

from __future__ import annotations

import json
import mimetypes
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from ...log import LogFollower
from ...records import JOURNAL, METADATA, RESCUE_JOURNAL, WITNESS_JOURNAL, JournalReader
from ...system import is_alive

#: What is kept for a browser that comes later.
LOG_ROWS = 1000
SAMPLES = 720
LAST = 200
#: A longer message is cut: the whole one is in the file.
MESSAGE_CHARS = 4000
#: What is read of the log at once; a burst beyond it is left out on the page.
LOG_BYTES = 256 * 1024
_SAMPLE_BYTES = 512 * 1024
_ALIVE_S = 1.0
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/svg+xml")
_FACTS = ("session_uuid", "subject_id", "user_id", "rig_id", "host", "started", "dry_run")

Update = tuple[str, Any]


class LiveSession:
    """One session as it is now.

    Attributes:
        status: ``running``, ``ending``, ``ended``, ``died`` (its process is gone without having ended it) or ``discarded``.
        over: it has ended or died.
        stops: how often the page's stop button was pressed.
        pictures: names of the files that the page may show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / METADATA
        self.status = "running"
        self.question: dict[str, Any] | None = None
        self.answered: deque[dict[str, Any]] = deque(maxlen=20)
        self.pictures: set[str] = set()
        self.stops = 0
        self._facts: dict[str, Any] = {}
        self._outcome: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._failures: deque[str] = deque(maxlen=LAST)
        self._notes: deque[str] = deque(maxlen=LAST)
        self._measurements: deque[dict[str, Any]] = deque(maxlen=LAST)
        self._acquisitions: list[str] = []
        self._attachments: list[str] = []
        self._readers = [JournalReader(self.metadata / name) for name in (JOURNAL, WITNESS_JOURNAL, RESCUE_JOURNAL)]
        self._log: LogFollower | None = None
        self._rows: deque[list[Any]] = deque(maxlen=LOG_ROWS)
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self._samples_size = -1
        self._process: tuple[int, float | None] | None = None
        self._looked = 0.0
        self._told: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        """Tell whether nothing of the experiment comes any more."""
        return self.status in ("ended", "died", "discarded")

    def snapshot(self) -> list[Update]:
        """Return all that a browser needs first."""
        log = {"rows": list(self._rows), "left_out": self._log.left_out if self._log is not None else 0}
        return [("reset", {"session": self._session(), "steps": self._steps, "log": log, "samples": list(self._samples)})]

    def read(self) -> list[Update]:
        """Take in what was written since the last call and return it."""
        changed: dict[int, dict[str, Any]] = {}
        for reader in self._readers:
            for event in reader.read():
                self._take(event, changed)
        self._look_for_death()
        updates: list[Update] = [("step", {"index": index, **step}) for index, step in changed.items()]
        updates += self._read_log() + self._read_samples()
        if (session := self._session()) != self._told:
            updates.append(("session", session))
            self._told = session
        return updates

    # -- journal -----------------------------------------------------------------------------------------------------

    def _session(self) -> dict[str, Any]:
        return {
            **self._facts,
            "status": self.status,
            "outcome": self._outcome,
            "stops": self.stops,
            "question": self.question,
            "answered": list(self.answered),
            "failures": list(self._failures),
            "notes": list(self._notes),
            "measurements": list(self._measurements),
            "acquisitions": list(self._acquisitions),
            "attachments": [name for name in self._attachments if name in self.pictures],
        }

    def _take(self, event: dict[str, Any], changed: dict[int, dict[str, Any]]) -> None:
        kind = event["event"]
        if kind == "session":
            self._begin(event)
        elif kind == "step_started":
            step = {key: event.get(key) for key in ("step", "phase", "kind", "started")}
            self._steps.append({**step, "outcome": None, "skipped": "", "attempts": 1})
            changed[len(self._steps) - 1] = self._steps[-1]
        elif kind in ("step_finished", "attempt_ended"):
            self._end_step(event, changed)
        elif kind == "kept":
            self._keep(str(event.get("field")), event.get("values") or [])
        elif kind == "question":
            self.question = {key: value for key, value in event.items() if key not in ("event", "mono")}
            if not self._allow(name := str(event.get("picture") or "")) and name:
                # No browser shows such a file.
                self.question.update(picture="", text=f"{event.get('text')} (picture: {name})")
        elif kind == "answered":
            self._close_question(event)
        elif kind == "acquisition_started":
            self._acquisitions.append(str(event.get("name")))
        elif kind == "acquisition_finished" and event.get("name") in self._acquisitions:
            self._acquisitions.remove(str(event["name"]))
        elif kind in ("ending", "discarded"):
            self.status = kind
        elif kind == "ended":
            # Its witness ends a session that died.
            self.status = "died" if event.get("by") else "ended"
            self._outcome = {key: event.get(key) for key in ("outcome", "exit_code")}
        elif kind == "died":
            self._die()
        elif kind == "death":
            self._keep("failures", [event.get("failure")])

    def _begin(self, event: dict[str, Any]) -> None:
        self._facts = {key: event.get(key) for key in _FACTS}
        self._log = LogFollower(self.folder / str(event.get("session_log") or f"{METADATA}/launcher.log"))
        if isinstance(event.get("pid"), int):
            created = event.get("create_time")
            self._process = event["pid"], created if isinstance(created, float) else None

    def _end_step(self, event: dict[str, Any], changed: dict[int, dict[str, Any]]) -> None:
        for index in range(len(self._steps) - 1, -1, -1):
            step = self._steps[index]
            if (step["step"], step["phase"]) == (event.get("step"), event.get("phase")):
                if event["event"] == "attempt_ended":
                    step["attempts"] += 1
                else:
                    step.update({key: event.get(key) for key in ("outcome", "skipped", "duration_s")}, ended=True)
                changed[index] = step
                return

    def _keep(self, field: str, values: list[Any]) -> None:
        if field == "failures":
            self._failures += [f"{one.get('step') or ''}: {one.get('message')}" for one in values if isinstance(one, dict)]
        elif field == "notes":
            self._notes += map(str, values)
        elif field == "measurements":
            self._measurements += [one for one in values if isinstance(one, dict)]
        elif field == "attachments":
            for name in map(str, values):
                self._attachments.append(name)
                self._allow(name)

    def _allow(self, name: str) -> bool:
        if mimetypes.guess_type(name)[0] in _PICTURES:
            self.pictures.add(name)
        return name in self.pictures

    def _close_question(self, event: dict[str, Any]) -> None:
        if self.question is not None and self.question.get("id") == event.get("id"):
            question, self.question = self.question, None
            self.answered.append(
                {"id": event["id"], "question": question["text"], "answer": event.get("text"), "by": event.get("by")}
            )

    def picture(self, name: str) -> tuple[Path, str] | None:
        """Return path and type of a picture that the session has named; None for anything else, or what lies outside of it."""
        if name not in self.pictures:
            return None
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            return None
        return path, mimetypes.guess_type(name)[0] or ""

    def _look_for_death(self) -> None:
        """Find out that the process is gone also where no witness tells it."""
        now = time.monotonic()
        if self._process is None or self.over or now - self._looked < _ALIVE_S:
            return
        self._looked = now
        if not is_alive(*self._process):
            self._die()

    def _die(self) -> None:
        self.status = "died"
        if self.question is not None:
            self._close_question({"id": self.question["id"], "by": "", "text": ""})

    # -- log and samples ---------------------------------------------------------------------------------------------

    def _read_log(self) -> list[Update]:
        if self._log is None:
            return []
        before = self._log.left_out
        rows = [
            [entry.timestamp.timestamp(), entry.level, entry.phase, entry.step, entry.logger, _shown(entry.message)]
            for entry in self._log.read(LOG_BYTES)
        ]
        self._rows += rows
        return [("log", {"rows": rows, "left_out": self._log.left_out})] if rows or before != self._log.left_out else []

    def _read_samples(self) -> list[Update]:
        """Return the samples that are newer than the last one; the file is an array that is only ever appended to."""
        try:
            with open(self.metadata / "resource_usage.json", "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                if size == self._samples_size:
                    return []
                self._samples_size = size
                stream.seek(max(0, size - (_SAMPLE_BYTES if not self._samples else _SAMPLE_BYTES // 8)))
                lines = stream.read().split(b"\n")
        except OSError:
            return []
        last = self._samples[-1]["timestamp"] if self._samples else ""
        fresh = [sample for line in lines if (sample := _sample(line)) is not None and sample["timestamp"] > last]
        self._samples += fresh
        return [("samples", fresh)] if fresh else []


def _shown(message: str) -> str:
    """Return a message as the page takes it: lone surrogates (bytes that are no text) are no JSON for a browser."""
    text = message[:MESSAGE_CHARS] + (" …" if len(message) > MESSAGE_CHARS else "")
    return text.encode("utf-8", "replace").decode("utf-8")


def _sample(line: bytes) -> dict[str, Any] | None:
    """Return the numbers of a sample that the page draws."""
    try:
        whole = json.loads(line.strip().rstrip(b","))
        experiment, acquisition = whole["launcher"] or {}, whole["acquisition"] or {}
        return {
            "timestamp": str(whole["timestamp"]),
            "cpu_percent": [experiment.get("cpu_percent"), acquisition.get("cpu_percent")],
            "memory_mb": [experiment.get("memory_mb"), acquisition.get("memory_mb")],
            "free_gb": [whole["system"]["disk"]["free_gb"], None],
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
