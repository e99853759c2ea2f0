"""What the live page shows, read from what a session writes while it runs: journals, session log, resource samples."""

from __future__ import annotations

import json
import mimetypes
import os
from collections import deque
from pathlib import Path
from typing import Any

from ...log import LogFollower
from ...records import JOURNAL, METADATA, RESCUE_JOURNAL, WITNESS_JOURNAL, JournalReader
from ...system import is_alive
from ..pages import PICTURES
from ..values import whole_text

#: What is kept for a browser that comes later.
LOG_ROWS = 1000
SAMPLES = 720
LAST = 200
#: A longer message is cut: the whole one is in the file.
MESSAGE_CHARS = 4000
#: What is read of the log at once; a burst beyond it is left out on the page.
LOG_BYTES = 256 * 1024
_SAMPLE_BYTES = 512 * 1024
_FACTS = ("session_uuid", "subject_id", "user_id", "rig_id", "host", "started", "dry_run")

Update = tuple[str, Any]


class LiveSession:
    """One session as it is now.

    Attributes:
        status: ``running``, ``ending``, ``ended``, ``died`` (its process is gone without having ended it) or ``discarded``.
        stops: how often the page's stop button was pressed.
        pictures: names of the files that the page may show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / METADATA
        self.status = "running"
        self.question: dict[str, Any] | None = None
        self.pictures: set[str] = set()
        self.stops = 0
        self._facts: dict[str, Any] = {}
        self._outcome: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        #: By step and phase, the index of its last run.
        self._last_run: dict[tuple[Any, Any], int] = {}
        self._acquisitions: list[str] = []
        kept = ("answered", "failures", "notes", "measurements", "attachments")
        self._kept: dict[str, deque[Any]] = {name: deque(maxlen=LAST) for name in kept}
        self._readers = [JournalReader(self.metadata / name) for name in (JOURNAL, WITNESS_JOURNAL, RESCUE_JOURNAL)]
        self._log: LogFollower | None = None
        self._rows: deque[list[Any]] = deque(maxlen=LOG_ROWS)
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self._samples_size = -1
        self._process: tuple[int, float | None] | None = None
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
        changed: set[int] = set()
        for reader in self._readers:
            for event in reader.read():
                self._take(event, changed)
        if self._process is not None and not self.over and not is_alive(*self._process):
            self._die()  # also where no witness tells it
        updates: list[Update] = [("step", {"index": index, **self._steps[index]}) for index in sorted(changed)]
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
            "acquisitions": list(self._acquisitions),
            **{name: list(values) for name, values in self._kept.items()},
            "attachments": [name for name in self._kept["attachments"] if name in self.pictures],
        }

    def _take(self, event: dict[str, Any], changed: set[int]) -> None:
        kind = event["event"]
        if kind == "session":
            self._facts = {key: event.get(key) for key in _FACTS}
            self._log = LogFollower(self.folder / (event.get("session_log") or f"{METADATA}/launcher.log"))
            self._process = event["pid"], event["create_time"]
        elif kind in ("step_started", "step_finished", "attempt_ended"):
            self._take_step(event, changed)
        elif kind == "kept":
            self._keep(event["field"], event["values"])
        elif kind == "question":
            self.question = {key: value for key, value in event.items() if key not in ("event", "mono")}
            if (name := event["picture"]) and not self._allow(name):
                # No browser shows such a file.
                self.question.update(picture="", text=f"{event['text']} (picture: {name})")
        elif kind == "answered":
            self._close_question(event)
        elif kind == "acquisition_started":
            self._acquisitions.append(event["name"])
        elif kind == "acquisition_finished" and event["name"] in self._acquisitions:
            self._acquisitions.remove(event["name"])
        elif kind in ("ending", "discarded"):
            self.status = kind
        elif kind == "ended":
            # Its witness ends a session that died.
            self.status = "died" if event.get("by") else "ended"
            self._outcome = {key: event.get(key) for key in ("outcome", "exit_code")}
        elif kind == "died":
            self._die()
        elif kind == "death":
            self._keep("failures", [event["failure"]])

    def _take_step(self, event: dict[str, Any], changed: set[int]) -> None:
        key = event["step"], event["phase"]
        if event["event"] == "step_started":
            self._last_run[key] = len(self._steps)
            begun = {name: event.get(name) for name in ("step", "phase", "kind", "started")}
            self._steps.append({**begun, "outcome": None, "skipped": "", "attempts": 1})
        if (index := self._last_run.get(key)) is None:
            return  # The line that told its beginning is damaged, or it never began.
        changed.add(index)
        if event["event"] == "attempt_ended":
            self._steps[index]["attempts"] += 1
        elif event["event"] == "step_finished":
            ended = {name: event.get(name) for name in ("outcome", "skipped", "duration_s")}
            self._steps[index].update(ended, ended=True)

    def _keep(self, field: str, values: list[Any]) -> None:
        if field == "failures":
            values = [f"{one.get('step') or ''}: {one.get('message')}" for one in values]
        elif field == "attachments":
            for name in values:
                self._allow(name)
        if field in self._kept:
            self._kept[field] += values

    def _allow(self, name: str) -> bool:
        if mimetypes.guess_type(name)[0] in PICTURES:
            self.pictures.add(name)
        return name in self.pictures

    def _close_question(self, event: dict[str, Any]) -> None:
        if self.question is not None and self.question["id"] == event["id"]:
            question, self.question = self.question, None
            answer = {"id": event["id"], "question": question["text"], "answer": event["text"], "by": event["by"]}
            self._kept["answered"].append(answer)

    def picture(self, name: str) -> tuple[Path, str] | None:
        """Return path and type of a picture that the session has named; None for anything else, or what lies outside of it."""
        if name not in self.pictures:
            return None
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            return None
        return path, mimetypes.guess_type(name)[0] or ""

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
    return whole_text(message[:MESSAGE_CHARS]) + (" …" if len(message) > MESSAGE_CHARS else "")


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
