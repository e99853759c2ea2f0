"""From a session's journal to its record: what happened, why its process died, and the states that it would have written.

Used by whoever works on a session from outside: the sidecar, the witness, the recovery.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import zlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..records import (
    JOURNAL,
    METADATA,
    RESCUE_JOURNAL,
    WITNESS_JOURNAL,
    AcquisitionFacts,
    Failure,
    JournalReader,
    OnFailure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    boot_is_same,
    from_json,
)
from ..system import is_alive, now_iso
from .notes import UNFINISHED, mark_unfinished, notes

FAULT_LOG = "faulthandler.log"
MAX_FAULT_BYTES = 100_000
#: Stands among the kept values where the process died.
_DEATH = "death"
#: Above it, an exit code is what Windows calls an exception.
_LARGEST_PLAIN_CODE = 0xFFFF
_FATAL = re.compile(r"^(?:Fatal Python error|Windows fatal exception): (.+)$", re.MULTILINE)
#: What faulthandler calls the signals that it catches.
_FAULTHANDLER_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
}


class AcquisitionView:
    """One acquisition process: its ``acquisition_started`` event, the last mark of each stream, and how it ended."""

    def __init__(self, started: dict[str, Any]) -> None:
        self.started = started
        self.name = str(started["name"])
        self.marks: dict[str, dict[str, Any]] = {}
        self.finished: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        """The main process; 0 when it is not known."""
        return int(self.started.get("pid") or 0)

    @property
    def is_call(self) -> bool:
        """True for a call within the session's process, of something that has a process of its own elsewhere."""
        return "pid" in self.started and self.started["pid"] is None

    @property
    def create_time(self) -> float | None:
        """The start time by which it is known."""
        return self.started.get("create_time")

    @property
    def lives(self) -> bool:
        """Tell whether the main process is known and lives."""
        return self.pid > 0 and is_alive(self.pid, self.create_time)


class SessionView:
    """Follows one session's journal and the witness's.

    Attributes:
        session: the ``session`` event; None until it is there. Likewise ``killed``, ``exiting``, ``ending`` and ``ended``.
        collected: the session's steps are known, so that it will stay.
        after_crash: ids of the steps of post-acquisition that may run after the process has died; ``rescue`` says how.
        acquisition_begun: the body of an acquisition step has started.
        discarded: it was a mistake of its command line, told and taken back: nothing is to be left of it.
        finished: nothing is owed to anybody, its mirror included.
        died: the first ``died`` event; ``death`` the failure that describes it.
        running: the ``step_started`` event of the step that runs, else None; ``last_step`` stays after its end.
        question: the ``waiting`` event of a question that the operator has not answered yet, else None.
        deadline: the last ``deadline`` event whose ``kill_at`` is set, else None.
        said: position in the session log of each line that a witness was about to write, by its key.
        last: the newest event of the experiment process.
        boot: names the run of the computer in which the session began; empty where nothing does.
        done: names of the parts of a witness's work that are complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / METADATA / JOURNAL
        self._readers = [JournalReader(self.path), JournalReader(folder / METADATA / WITNESS_JOURNAL)]
        self._rescue = JournalReader(folder / METADATA / RESCUE_JOURNAL)
        self.session: dict[str, Any] | None = None
        self.killed: dict[str, Any] | None = None
        self.exiting: dict[str, Any] | None = None
        self.ending: dict[str, Any] | None = None
        self.ended: dict[str, Any] | None = None
        self.collected = self.discarded = self.finished = False
        self.steps: list[dict[str, Any]] = []
        self.running: dict[str, Any] | None = None
        self.last_step: dict[str, Any] | None = None
        self.deadline: dict[str, Any] | None = None
        self.acquisitions: dict[str, AcquisitionView] = {}
        self.safe_states: list[dict[str, Any]] = []
        #: Packed: it is needed at the end only, and holds the last lines of every program that ran.
        self._kept: list[tuple[str, bytes]] = []
        self.died: dict[str, Any] | None = None
        self.death: Failure | None = None
        self.after_crash: list[str] = []
        self.rescue: dict[str, Any] = {}
        self.acquisition_begun = False
        self.boot = ""
        self.last: dict[str, Any] | None = None
        self.question: dict[str, Any] | None = None
        self.said: dict[str, int] = {}
        self.done: set[str] = set()

    @classmethod
    def of(cls, folder: Path) -> SessionView:
        """Return what a session's journals say now."""
        view = cls(folder)
        view.read()
        return view

    def read(self) -> None:
        """Take in the events that came since the last call."""
        own, witness = (reader.read() for reader in self._readers)
        events = [*own, *witness]
        events += [{**event, "rescued": True} for event in self._rescue.read()]
        self.last = next((event for event in reversed(own) if "mono" in event), self.last)
        for event in events:
            # An event of another version may lack what this one needs.
            with contextlib.suppress(KeyError, TypeError, ValueError):
                self._take(str(event["event"]), event)

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "session" | "killed" | "exiting" | "ending" | "ended":
                setattr(self, kind, event)
            case "discarded" | "finished" | "acquisition_begun":
                setattr(self, kind, True)
            case "reopened":
                # Something is owed again: steps were made up for after the session had been finished.
                self.finished = False
            case "sidecar_started" if not event.get("finish"):
                # One that only finishes a session may be of a later boot.
                self.boot = self.boot or str(event.get("boot") or "")
            case "collected" if not self.collected:
                self.collected = True
                self.after_crash, self.rescue = list(event.get("after_crash") or ()), dict(event.get("rescue") or {})
            case "step_started":
                self.running = self.last_step = {**event, "phase": Phase(event["phase"])}
                self.steps.append(self.running)
            case "step_resumed":
                # A fixture's part is over; the step around it goes on.
                self.last_step = self.running or event
            case "step_finished":
                self._end_step(event)
            case "attempt_ended":
                self._take_attempt_back(event)
            case "waiting":
                self.question = event
            case "waiting_over":
                self.question = None
            case "deadline":
                self.deadline = event if event["kill_at"] is not None else None
            case "acquisition_starting" | "acquisition_started":
                acquisition = AcquisitionView(event)
                if acquisition.pid >= 0:
                    self.acquisitions[acquisition.name] = acquisition
            case "acquisition_not_started":
                self.acquisitions.pop(event["name"], None)
            case "acquisition_batch":
                self.acquisitions[event["name"]].marks[event["stream"]] = event
            case "acquisition_finished":
                self.acquisitions[event["name"]].finished = event
            case "safe_state" | "safe_state_done":
                self.safe_states = [other for other in self.safe_states if other["device"] != event["device"]]
                self.safe_states += [event] if kind == "safe_state" else []
            case "kept":
                self._kept.append((event["field"], _packed(event["values"])))
            case "died" if self.died is None:
                self.died = event
                self._kept.append((_DEATH, _packed(())))
            case "death":
                self.death = from_json("failures", event["failure"])
            case "witness_line":
                self.said[event["key"]] = event["log_size"]
            case "witness_done":
                self.done.add(event["part"])

    def _end_step(self, event: dict[str, Any]) -> None:
        named = [step for step in self.steps if (step["step"], step["phase"]) == (event["step"], event["phase"])]
        for step in [step for step in named if "outcome" not in step][-1:] or named[-1:]:
            step.update(outcome=event["outcome"], skipped=event.get("skipped"), duration_s=event.get("duration_s"))
            step["ends"] = [*step.get("ends", ()), event["at"]]
        # A fixture's part runs within a step, which goes on when it is done.
        self.running = next((step for step in reversed(self.steps) if "outcome" not in step), None)

    def _take_attempt_back(self, event: dict[str, Any]) -> None:
        """Failures of an attempt that another one followed are not the session's."""
        tried = [step for step in self.steps if (step["step"], step["nodeid"]) == (event["step"], event["nodeid"])]
        for step in tried[-1:]:
            step.setdefault("attempts", []).append(event["attempt"])
        self._kept = [
            (field, packed if field != "failures" else _packed(one for one in values if one.get("nodeid") != event["nodeid"]))
            for (field, packed), (_, values) in zip(self._kept, self.kept, strict=True)
        ]

    def mark_unfinished(self) -> None:
        """Leave the note for the rig's next session that something is owed.

        Raises:
            OSError: the state directory cannot be written.
        """
        mark_unfinished(self.state_directory, self.uuid, self.folder, self.value("mirror_directory"))

    def value(self, key: str, default: Any = None) -> Any:
        """Return a field of the ``session`` event; ``default`` also where it is null."""
        found = (self.session or {}).get(key)
        return default if found is None else found

    def new_record(self) -> SessionRecord:
        """Return a record that has only what the session knew when it began."""
        ids = self.value("subject_id"), self.value("user_id"), str(self.value("rig_id", ""))
        return SessionRecord(self.uuid, *ids, str(self.value("started", "")), bool(self.value("dry_run", False)))

    @property
    def kept(self) -> list[tuple[str, list[Any]]]:
        """Fields of the session's record and what was taken into them, in order."""
        return [(field, json.loads(zlib.decompress(packed))) for field, packed in self._kept]

    @property
    def uuid(self) -> str:
        """The session's name."""
        return str(self.value("session_uuid", self.folder.name))

    @property
    def log_path(self) -> Path:
        """The session log."""
        return self.folder / str(self.value("session_log", f"{METADATA}/launcher.log"))

    @property
    def state_directory(self) -> Path:
        """Where the rig keeps what outlives its sessions; known with :attr:`session`."""
        return Path(self.value("state_directory"))

    @property
    def process(self) -> tuple[int, float | None]:
        """Pid and start time of the experiment process."""
        return self.value("pid", 0), self.value("create_time")

    @property
    def same_boot(self) -> bool:
        """True when the session began since the computer was started."""
        return self.is_of_this_boot(self.session or {})

    def is_of_this_boot(self, event: dict[str, Any]) -> bool:
        """Tell whether an event's monotonic time can be compared with those of today."""
        return boot_is_same(float(event.get("mono") or 0.0), str(event.get("at") or ""), self.boot)

    @property
    def rescue_failed(self) -> bool:
        """Tell whether a step that was made up for after the death has failed."""
        fields = [field for field, values in self.kept if field == _DEATH or (field == "failures" and values)]
        return _DEATH in fields and fields[-1] != _DEATH


def _packed(values: Iterable[Any]) -> bytes:
    return zlib.compress(json.dumps(list(values)).encode("ascii"), 1)


def is_running(session: dict[str, Any]) -> bool:
    """Tell whether the experiment process that a ``session`` event names lives."""
    return is_alive(session.get("pid"), session.get("create_time"))


def running_sessions(state_directories: Iterable[Path]) -> list[SessionView]:
    """Return the sessions of these rigs that run on this computer now."""
    noted = [facts for state in state_directories for _, facts in notes(state / UNFINISHED)]
    views = [SessionView.of(Path(str(facts.get("session_folder") or ""))) for facts in noted]
    return [view for view in views if view.session is not None and view.ended is None and is_running(view.session)]


# -- why the process died ------------------------------------------------------------------------------------------------


def failure_of_death(view: SessionView, exit_code: int | None) -> Failure:
    """Describe the death as a failure: ``timeout`` when the sidecar ended the process for a deadline, else ``crash``.

    Told from the exit code (a signal negative), the journal and the faulthandler file.
    """
    step, faults, name, stack = view.running or {}, _fault_text(view.folder), "", ""
    kind, outcome = "crash", Outcome.CRASHED
    if view.killed is not None:
        kind, outcome = "timeout", Outcome.TIMEOUT
        text = f"{view.killed['what']}: the experiment process did not come back and was killed"
    elif view.exiting is not None:
        text, stack = f"os._exit({view.exiting['code']}) was called", view.exiting["text"]
    else:
        name = _signal(exit_code, faults)
        text = _how(view, exit_code, name, faults)
    return Failure(
        kind,
        outcome,
        text + _where(view),
        traceback=stack or faults,
        signal=name,
        phase=step.get("phase"),
        step=step.get("step", ""),
        nodeid=step.get("nodeid", ""),
        at=now_iso(),
        faulthandler=faults,
    )


def _fault_text(folder: Path) -> str:
    """Return what faulthandler wrote, bounded."""
    try:
        with open(folder / METADATA / FAULT_LOG, "rb") as stream:
            data = stream.read(MAX_FAULT_BYTES)
    except OSError:
        return ""
    return data.decode("utf-8", "replace").replace("\0", "").strip()


def _signal(exit_code: int | None, faults: str) -> str:
    """Return ``SIGKILL`` for -9; without an exit code what faulthandler says, empty for no signal."""
    if exit_code is None or exit_code >= 0:
        fatal = _FATAL.search(faults)
        return _FAULTHANDLER_SIGNALS.get(fatal[1].strip(), "") if fatal else ""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _how(view: SessionView, exit_code: int | None, name: str, faults: str) -> str:
    fatal = _FATAL.search(faults)
    if fatal and fatal[0].startswith("Windows") and exit_code is not None and 0 <= exit_code <= _LARGEST_PLAIN_CODE:
        # faulthandler notes also what a library (COM, a driver) catches and mends; the exit code tells what was fatal.
        fatal = None
    if name:
        return f"the experiment process was ended by {name}"
    if fatal:
        return f"the experiment process died: {fatal[1].strip()}"
    if exit_code is not None:
        shown = f"{exit_code:#010x}" if exit_code > _LARGEST_PLAIN_CODE else str(exit_code)
        return f"the experiment process ended with exit code {shown} before its session had ended"
    if not view.same_boot:
        return "the computer was restarted or lost power"
    return "the experiment process is gone, how is not known"


def _where(view: SessionView) -> str:
    if view.ending is not None:
        return f" while the session was ending (its outcome was {view.ending.get('outcome')})"
    if view.running is not None:
        return f" in {view.running.get('phase')} step {view.running.get('step')}"
    if view.last_step is not None:
        return f" after {view.last_step.get('phase')} step {view.last_step.get('step')}"
    return " before the first step"


# -- what the session would have written ---------------------------------------------------------------------------------


def record_of(
    view: SessionView, death: Failure, exit_code: int | None, stops: dict[str, Any], helper_failures: Iterable[str]
) -> SessionRecord:
    """Rebuild the session's record from its journal; the death is the last failure before those of a rescue."""
    died, record = view.died or {}, view.new_record()
    record.stopped, record.exit_code = str(died.get("stopped") or died.get("at") or ""), exit_code
    record.readiness_override, record.continues = view.value("readiness_override"), view.value("continues")
    record.steps = [_step(view, event, death) for event in view.steps]
    for field, values in view.kept:
        # A field of another version is passed over.
        with contextlib.suppress(AttributeError, TypeError, ValueError, KeyError):
            taken = [death] if field == _DEATH else [from_json(field, value) for value in values]
            record.take("failures" if field == _DEATH else field, taken)
    if death not in record.failures:
        record.take("failures", [death])
    record.take("helper_failures", helper_failures)
    ended = {facts.name for facts in record.acquisitions}
    running = {name: one for name, one in view.acquisitions.items() if name not in ended}
    record.duration_s = _duration_s(view, record)
    record.take("acquisitions", [_facts(view, acquisition, stops.get(name) or {}) for name, acquisition in running.items()])
    return record


def _step(view: SessionView, event: dict[str, Any], death: Failure) -> StepRecord:
    step = StepRecord(
        str(event["step"]),
        str(event.get("nodeid") or ""),
        event["phase"],
        OnFailure(event.get("on_failure") or OnFailure.ABORT),
        str(event.get("kind") or "test"),
        started=str(event.get("started") or event.get("at") or ""),
        attempts=list(event.get("attempts") or []),
    )
    if "outcome" in event:
        step.outcome = Outcome(event["outcome"]) if event["outcome"] else None
        step.skipped = str(event.get("skipped") or "")
        step.duration_s = float(event.get("duration_s") or 0.0)
    else:
        # It was running: a step, and perhaps the fixture that it was being torn down with.
        step.outcome = death.outcome
        step.duration_s = max(0.0, _between(view, event, view.died) or 0.0) if view.died else 0.0
    return step


def _facts(view: SessionView, acquisition: AcquisitionView, stop: dict[str, Any]) -> AcquisitionFacts:
    finished = acquisition.finished or {}
    return AcquisitionFacts(
        name=acquisition.name,
        command=[str(part) for part in acquisition.started.get("command") or []],
        pid=acquisition.pid or None,
        returncode=finished.get("returncode"),
        duration_s=_between(view, acquisition.started, finished) if finished else None,
        survivors=list(stop.get("survivors") or []),
        stop_reason="" if finished else "the experiment process died",
    )


def _between(view: SessionView, first: dict[str, Any], last: dict[str, Any]) -> float | None:
    """Return the seconds between two events, None unless the computer has been on since."""
    return float(last["mono"]) - float(first["mono"]) if view.is_of_this_boot(first) else None


def _duration_s(view: SessionView, record: SessionRecord) -> float | None:
    """Return how long the session ran, as far as is known.

    Found dead later, it ran to its last sign of life: a change of a file, by a clock that may have been set in between, which
    is what the last event's time is for then.
    """
    first, died = view.session or {}, view.died or {}
    if first and died.get("recovered") is False:
        return float(died["mono"]) - float(first["mono"])
    if any(change.get("set_by_s") for change in record.clock_changes) and view.last is not None:
        return float(view.last["mono"]) - float(first["mono"])
    try:
        passed = datetime.fromisoformat(record.stopped or "") - datetime.fromisoformat(record.started)
    except (ValueError, TypeError):
        return None
    return max(0.0, passed.total_seconds())
