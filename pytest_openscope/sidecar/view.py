"""What a journal says about its session: the events folded into one picture, for the sidecar, the witness and the recovery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..records import JOURNAL, METADATA, JournalReader

#: The sidecar's own journal, beside the session's: each file has one writer, since Windows has no atomic append. It is also
#: the file that a sidecar or a recovery locks as long as it sees to a session.
WITNESS_JOURNAL = "witness.jsonl"


class AcquisitionView:
    """One acquisition process: its ``acquisition_started`` event, the last mark of each stream, and how it ended."""

    def __init__(self, started: dict[str, Any]) -> None:
        self.started = started
        self.marks: dict[str, dict[str, Any]] = {}
        self.finished: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The acquisition's name, unique in its session."""
        return str(self.started.get("name") or "acquisition")

    @property
    def pid(self) -> int:
        """The main process; 0 when it is not known."""
        value = self.started.get("pid")
        return value if isinstance(value, int) else 0

    @property
    def create_time(self) -> float | None:
        """When it started, in seconds since the epoch."""
        value = self.started.get("create_time")
        return float(value) if isinstance(value, (int, float)) else None


class SessionView:
    """Follows one session's journal.

    Attributes:
        session: the ``session`` event; None until it is there.
        running: the ``step_started`` event of the step that runs, else None; ``last_step`` stays after its end.
        kept: fields of the session's record and what was taken into them, in order.
        deadline: the last ``deadline`` event whose ``kill_at`` is set, else None.
        collected: its steps are known, so that it will stay.
        discarded: it was a mistake of its command line, told and taken back: nothing is to be left of it.
        said: position in the session log of each line that a witness was about to write, by its key.
        done: names of the parts of a witness's work that are complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / METADATA / JOURNAL
        self._readers = [JournalReader(self.path), JournalReader(folder / METADATA / WITNESS_JOURNAL)]
        self.session: dict[str, Any] | None = None
        self.steps: list[dict[str, Any]] = []
        self.running: dict[str, Any] | None = None
        self.last_step: dict[str, Any] | None = None
        self.deadline: dict[str, Any] | None = None
        self.acquisitions: dict[str, AcquisitionView] = {}
        self.safe_states: list[dict[str, Any]] = []
        self.kept: list[tuple[str, list[Any]]] = []
        self.died: dict[str, Any] | None = None
        self.killed: dict[str, Any] | None = None
        self.exiting: dict[str, Any] | None = None
        self.ending: dict[str, Any] | None = None
        self.ended: dict[str, Any] | None = None
        self.bye = False
        self.collected = False
        self.discarded = False
        self.finished = False
        self.sidecar: dict[str, Any] | None = None
        self.said: dict[str, int] = {}
        self.done: set[str] = set()

    def read(self) -> list[dict[str, Any]]:
        """Take in the events that came since the last call and return them."""
        events = [event for reader in self._readers for event in reader.read()]
        for event in events:
            take = getattr(self, f"_on_{event['event']}", None)
            if take is not None:
                try:
                    take(event)
                except (KeyError, TypeError, ValueError):
                    continue  # an event of another version lacks what this one needs
        return events

    def value(self, key: str, default: Any = None) -> Any:
        """Return a field of the ``session`` event; ``default`` also where it is null."""
        found = (self.session or {}).get(key)
        return default if found is None else found

    @property
    def log_path(self) -> Path:
        """The session log."""
        return self.folder / str(self.value("session_log", f"{METADATA}/launcher.log"))

    @property
    def state_directory(self) -> Path | None:
        """Where the rig keeps what outlives its sessions."""
        found = self.value("state_directory")
        return Path(found) if found else None

    def _on_session(self, event: dict[str, Any]) -> None:
        self.session = event

    def _on_step_started(self, event: dict[str, Any]) -> None:
        self.running = self.last_step = dict(event)
        self.steps.append(self.running)

    def _on_step_resumed(self, event: dict[str, Any]) -> None:
        """A fixture's part is over; the step around it goes on."""
        self.last_step = self.running or event

    def _on_step_finished(self, event: dict[str, Any]) -> None:
        named = [
            step for step in self.steps if (step.get("step"), step.get("phase")) == (event.get("step"), event.get("phase"))
        ]
        for step in [step for step in named if "outcome" not in step][-1:] or named[-1:]:
            step.update(outcome=event.get("outcome"), skipped=event.get("skipped"), duration_s=event.get("duration_s"))
        # A fixture's part runs within a step, which goes on when it is done.
        self.running = next((step for step in reversed(self.steps) if "outcome" not in step), None)

    def _on_deadline(self, event: dict[str, Any]) -> None:
        self.deadline = event if isinstance(event.get("kill_at"), (int, float)) else None

    def _on_acquisition_starting(self, event: dict[str, Any]) -> None:
        self.acquisitions[str(event["name"])] = AcquisitionView(event)

    def _on_acquisition_not_started(self, event: dict[str, Any]) -> None:
        self.acquisitions.pop(str(event["name"]), None)

    def _on_acquisition_started(self, event: dict[str, Any]) -> None:
        self.acquisitions[str(event["name"])] = AcquisitionView(event)

    def _on_acquisition_batch(self, event: dict[str, Any]) -> None:
        self.acquisitions[str(event["name"])].marks[str(event["stream"])] = event

    def _on_acquisition_finished(self, event: dict[str, Any]) -> None:
        self.acquisitions[str(event["name"])].finished = event

    def _on_safe_state(self, event: dict[str, Any]) -> None:
        self.safe_states = [other for other in self.safe_states if other.get("device") != event["device"]] + [event]

    def _on_safe_state_done(self, event: dict[str, Any]) -> None:
        self.safe_states = [other for other in self.safe_states if other.get("device") != event["device"]]

    def _on_attempt_ended(self, event: dict[str, Any]) -> None:
        for step in reversed(self.steps):
            if (step.get("step"), step.get("nodeid")) == (event.get("step"), event.get("nodeid")):
                step.setdefault("attempts", []).append(event["attempt"])
                break
        # Failures of an attempt that another one followed are not the session's.
        self.kept = [
            (field, [one for one in values if field != "failures" or one.get("nodeid") != event["nodeid"]])
            for field, values in self.kept
        ]

    def _on_kept(self, event: dict[str, Any]) -> None:
        self.kept.append((str(event["field"]), list(event["values"])))

    def _on_died(self, event: dict[str, Any]) -> None:
        self.died = self.died or event

    def _on_killed(self, event: dict[str, Any]) -> None:
        self.killed = event

    def _on_exiting(self, event: dict[str, Any]) -> None:
        self.exiting = event

    def _on_ending(self, event: dict[str, Any]) -> None:
        self.ending = event

    def _on_ended(self, event: dict[str, Any]) -> None:
        self.ended = event

    def _on_collected(self, event: dict[str, Any]) -> None:
        self.collected = True

    def _on_discarded(self, event: dict[str, Any]) -> None:
        self.discarded = True

    def _on_bye(self, event: dict[str, Any]) -> None:
        self.bye = True

    def _on_sidecar_started(self, event: dict[str, Any]) -> None:
        self.sidecar = event

    def _on_witness_line(self, event: dict[str, Any]) -> None:
        self.said[str(event["key"])] = int(event["log_size"])

    def _on_witness_done(self, event: dict[str, Any]) -> None:
        self.done.add(str(event["part"]))

    def _on_finished(self, event: dict[str, Any]) -> None:
        self.finished = True
