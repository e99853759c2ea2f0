"""The state of one session: what it knows and holds, and how that is kept on record."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from ..log import SessionLog, mask_json, mask_text
from ..records import (
    END_STATE,
    AcquisitionFacts,
    Failure,
    Gate,
    Measurement,
    OnFailure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    end_state,
    json_safe,
    to_json,
)
from ..system import ClockChange, Desktop, FileLock, now_iso, time_field, write_json
from ..views import Progress
from .interrupts import Interrupts, Watchdog
from .operator import Operator
from .options import Options
from .questions import Questions

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import BaseModel

    from ..acquisition import Acquisition
    from ..config import Configuration, PipelineEntry, Rig
    from ..records import Journal
    from ..views import Stopping, TerminalView
    from .continuing import Earlier

_log = logging.getLogger("pytest_openscope.session")
_LOGGER = "pytest_openscope.session"


class SessionState:
    """Everything that one session knows and holds.

    Attributes:
        record: what happened so far; becomes ``end_state.json``.
        parameters: merged and expanded parameters.
        own_parameters: the experiment's own ones as ``parameters_model`` has them; None without.
        folder: the session folder.
        gate: which steps may still run.
    """

    # Set by :func:`.opening.open_session`.
    folder: Path
    metadata: Path
    log_path: Path
    record: SessionRecord
    started: datetime
    #: The same moment on the monotonic clock.
    started_s: float
    parameters: dict[str, Any]
    own_parameters: BaseModel | None
    rig: Rig
    entries: tuple[PipelineEntry, ...]
    journal: Journal
    interrupts: Interrupts
    watchdog: Watchdog

    def __init__(
        self, config: pytest.Config, log: SessionLog, configuration: Configuration, options: Options, operator: Operator
    ) -> None:
        self.config = config
        self.log = log
        self.configuration = configuration
        self.settings = configuration.settings
        self.options = options
        self.operator = operator
        self.dry_run = configuration.dry_run
        self.validating = configuration.validating
        self.gate = Gate(self._confirm, self._tell_nodes)
        self.nodes: Any = None
        self.notices: list[str] = []
        self.configuration_notices: tuple[str, ...] = ()
        self.readiness_override: dict[str, Any] | None = None
        self.earlier: Earlier | None = None
        self.resuming = options.resume_session is not None
        self.notices_shown = 0
        self.mirror: dict[str, Any] = {"status": "off", "bytes_behind": 0, "reason": ""}
        self.reports: list[dict[str, Any]] = []
        #: How far the mirror is behind while the session runs; None until the sidecar has told.
        self.mirror_lag: dict[str, Any] | None = None
        self.missing_token = ""
        self.acquisition: Acquisition | None = None
        self.devices: Any = None
        self.device_states: dict[str, Any] = {}
        self.sidecar: Any = None
        self.desktop: Desktop | None = None
        self.questions: Questions | None = None
        self.view: TerminalView | None = None
        self.progress: Progress | None = None
        self.stopping: Stopping | None = None
        #: Source and text of the last line that an acquisition printed.
        self.last_output: tuple[str, bytes] | None = None
        #: What the session does when no step runs.
        self.doing = "collecting the steps"
        self.finished = self.collected = self.discarded = False
        self.ending = False
        self.pid = os.getpid()
        self.step_limit_s: float | None = None
        self.attempt = 1
        #: Folders above the session's that were made for it, the lowest first.
        self.made_roots: list[Path] = []
        self.scripts: Any = None
        self.own_steps: Any = None
        self.rig_watch: Any = None
        self.recorder: Any = None
        self.terminal_fd: int | None = None
        self.exit_request: BaseException | None = None
        self.rig_lock: FileLock | None = None
        self.faults: IO[str] | None = None

    def _confirm(self, question: str) -> bool:
        try:
            return self.operator.confirm(question, default=False)
        except EOFError:
            return False

    def _tell_nodes(self, cause: str) -> None:
        if self.nodes is not None:
            self.nodes.tell_failure(cause)

    def free_rig(self) -> None:
        """Let another session have the rig."""
        lock, self.rig_lock = self.rig_lock, None
        if lock is not None:
            lock.release()

    @property
    def secrets(self) -> frozenset[str]:
        """Exact values that may not appear anywhere."""
        return self.configuration.secrets

    def save(self, name: str, content: Any) -> None:
        """Write a JSON file into ``launcher_metadata``."""
        write_json(self.metadata / name, content)

    def tell(self, texts: Iterable[str]) -> None:
        """Tell the operator something in the summary and in the log, where the session has begun."""
        for text in texts:
            self.notices.append(text)
            self.log.write("WARNING", _LOGGER, text)

    def guard(self, what: str, action: Callable[[], object]) -> bool:
        """Run what only helps; a failure is logged with its traceback and shown in the summary, never raised."""
        try:
            action()
            return True
        except Exception as error:
            self.log.write("ERROR", _LOGGER, f"{what} failed\n{traceback.format_exc().rstrip()}")
            self.keep("helper_failures", f"{what}: {type(error).__name__}: {error}")
            return False

    def fresh_notices(self) -> list[str]:
        """Return what the terminal has not shown yet."""
        fresh = self.notices[self.notices_shown :]
        self.notices_shown += len(fresh)
        return fresh

    def lose_records(self, error: OSError) -> None:
        """Tell at once that the session log cannot be written; the run goes on."""
        text = f"the session log cannot be written: {error}. The run goes on, the lost records are counted"
        self.notices.append(text)
        self.keep("lost_records", self.log.lost_records)
        with contextlib.suppress(OSError, ValueError):
            print(f"\nWARNING: {text}", file=sys.__stderr__)

    def note_clock_change(self, at: float, change: ClockChange) -> None:
        """Keep that the clock was set, or that the computer slept."""
        facts = {"at": time_field(at), "set_by_s": change.set_by_s, "slept_s": change.slept_s, "text": change.text}
        self.keep("clock_changes", facts)

    def take_message(self, message: dict[str, Any]) -> None:
        """Take what the sidecar says: lines for the log, the mirror's status, reports, its own fate."""
        kind = message.get("type")
        if kind == "say":
            level, text = str(message.get("level", "INFO")), str(message.get("text", ""))
            self.log.write(level, str(message.get("logger", "pytest_openscope.sidecar")), text)
            if message.get("terminal"):
                self.notices.append(text)
        elif kind == "note":
            self.note(str(message.get("text", "")))
        elif kind == "answer" and self.questions is not None:
            self.questions.take(str(message.get("question")), str(message.get("text", "")))
        elif kind == "stop" and self.questions is not None:
            self.interrupts.request("the live page's stop button")
        elif kind == "mirror":
            self.mirror = {key: message.get(key) for key in ("status", "bytes_behind", "reason")}
        elif kind == "mirror_lag":
            self.mirror_lag = message
        elif kind == "report":
            self.reports.append(message)
            if not self.finished and message.get("issue_url"):
                self.log.write("INFO", "pytest_openscope.issues", f"reported: {message['issue_url']} ({message.get('status')})")
        elif kind in ("restarted", "gave_up"):
            text = f"the sidecar {'was started again' if kind == 'restarted' else 'is gone'}: {message.get('reason')}"
            self.log.write("WARNING", "pytest_openscope.sidecar", text)
            if kind == "gave_up":
                if self.questions is not None:
                    self.questions.lose_page(text)
                self.keep("helper_failures", text)
                if self.mirror["status"] == "pending":
                    self.mirror = {**self.mirror, "reason": f"{text}; the next session on this rig finishes it"}

    def fail(self, failure: Failure) -> None:
        """Keep a failure; the first one is what ``debug_state.json`` describes."""
        _name_by_hook(self, failure)
        self.keep("failures", failure)

    def keep(self, field: str, *values: Any) -> None:
        """Take values into a field of the record; they survive this process once this returns.

        Adds to a list, sets any other field. See :meth:`.SessionRecord.take`.
        """
        self.record.take(field, values)
        self.journal.write("kept", field=field, values=mask_json(json_safe([to_json(value) for value in values]), self.secrets))

    def note_question(self, text: str | None) -> None:
        """Let the sidecar know that the operator is asked, and that the question is over (None)."""
        if text is None:
            self.journal.write("waiting_over")
        else:
            self.journal.write("waiting", text=mask_text(text, self.secrets))

    def note(self, text: str) -> None:
        """Keep a note of the experimenter."""
        self.keep("notes", text)
        logging.getLogger("pytest_openscope.notes").info("%s", text)

    def attach(self, path: Path) -> Path:
        """Register a result; a file from outside the session folder is copied into it, never over another one.

        Raises:
            FileNotFoundError: there is no such file.
        """
        kept, name = _keep_attachment(path, self.folder)
        if name not in self.record.attachments:
            self.keep("attachments", name)
        _log.info("attached %s", name)
        return kept

    def keep_picture(self, path: Path) -> str:
        """Attach the picture of a question and return its name in the session folder."""
        return self.attach(path).resolve().relative_to(self.folder.resolve()).as_posix()

    def measured(self, measurement: Measurement) -> None:
        """Keep a measured value."""
        steps = self.record.steps
        measurement.step = steps[-1].name if steps else ""
        self.keep("measurements", measurement)
        unit = f" {measurement.unit}" if measurement.unit else ""
        limits = "" if measurement.passed else f" (allowed: {measurement.limits})"
        level = logging.INFO if measurement.passed else logging.ERROR
        logger = logging.getLogger("pytest_openscope.measurements")
        logger.log(level, "%s = %s%s%s", measurement.name, measurement.value, unit, limits)

    def expanded_entry(self, entry: PipelineEntry) -> PipelineEntry:
        """Return a pipeline entry with its placeholders replaced."""
        return next(one for one in self.entries if (one.phase, one.name) == (entry.phase, entry.name))

    @property
    def repository(self) -> Path | None:
        """Where the experiment's repository lies, when the parameters name one."""
        from ..acquisition import repository_folder

        return repository_folder(self.parameters)

    def simulate(self, what: str, would: str) -> None:
        """Note that a dry run did not do something."""
        self.keep("simulated", what)
        _log.info("dry run: would %s", would)

    def begin_post_acquisition(self) -> None:
        """Write the provisional end state that post-acquisition modules read; after a crash the final one is there."""
        if self.resuming:
            return
        self.guard("writing the provisional end_state.json", partial(self.save_end_state, provisional=True))

    def save_end_state(self, provisional: bool = False) -> None:
        """Write ``end_state.json``; a provisional one has no outcome yet."""
        rig, secrets = self.rig_config(), self.secrets
        state = end_state(self.record, rig_config=rig, mirror=self.mirror, provisional=provisional, secrets=secrets)
        self.save(END_STATE, state)

    def add_step(self, name: str, nodeid: str, phase: Phase, policy: OnFailure, kind: str) -> StepRecord:
        """Begin the record of a step."""
        step = StepRecord(name, nodeid, phase, policy, kind, started=now_iso())
        self.record.steps.append(step)
        self.progress = None
        if self.view is not None:
            self.view.step_begins(step)
        self.journal.write(
            "step_started",
            phase=str(phase),
            step=name,
            nodeid=nodeid,
            on_failure=str(policy),
            kind=kind,
            started=step.started,
        )
        return step

    def begin_attempt(self, number: int) -> None:
        """Tell acquisitions which attempt of the running step they belong to."""
        self.attempt = number
        if self.acquisition is not None:
            self.acquisition.attempt = number

    def take_attempt_back(self, step: StepRecord, duration_s: float) -> None:
        """Keep what a step did so far as one of its attempts, and forget its failures: it is tried again."""
        attempt = {
            "attempt": len(step.attempts) + 1,
            "outcome": str(step.outcome) if step.outcome else None,
            "message": next((one.message for one in reversed(self.record.failures) if one.nodeid == step.nodeid), ""),
            "started": step.attempts[-1]["ended"] if step.attempts else step.started,
            "ended": now_iso(),
            "duration_s": duration_s,
        }
        self.record.take_attempt_back(step, attempt)
        shown = mask_json(json_safe(attempt), self.secrets)
        self.journal.write("attempt_ended", phase=str(step.phase), step=step.name, nodeid=step.nodeid, attempt=shown)

    def end_step(self, step: StepRecord) -> None:
        """Keep what became of a step."""
        self.journal.write(
            "step_finished",
            phase=str(step.phase),
            step=step.name,
            outcome=str(step.outcome) if step.outcome else None,
            skipped=mask_json(step.skipped, self.secrets) if step.skipped else "",
            duration_s=step.duration_s,
        )
        self.progress = None
        if self.view is not None:
            self.view.step_ended(step)

    def show_progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Keep how far the running step is, for the terminal; costs an attribute."""
        now, before = time.monotonic(), self.progress
        began = before.began if before is not None and (before.total, before.unit) == (total, unit) else now
        self.progress = Progress(done, total, unit, began, now)

    def rig_config(self) -> dict[str, Any]:
        """The rig file's content, as it is kept in ``end_state.json``."""
        return {"rig_id": self.record.rig_id, **self.configuration.rig.raw}

    @property
    def outcome(self) -> Outcome:
        """The worst so far; log records that were lost by now count."""
        self.record.lost_records = self.log.lost_records
        return self.record.outcome

    def facts_of(self, error: BaseException) -> AcquisitionFacts | None:
        """Return what an acquisition's exception knows of its process."""
        facts = getattr(error, "facts", None)
        return facts if isinstance(facts, AcquisitionFacts) else None


#: A longer name is a message, and is kept as its fingerprint only.
MAX_NAME_CHARS = 200


def _name_by_hook(session: SessionState, failure: Failure) -> None:
    """Set ``failure.fingerprint`` to what ``pytest_openscope_fingerprint`` answers, if anything does.

    A hook that raises, or answers with something else than text, is shown as a failed helper; the failure keeps the name that
    it had.
    """
    hook = session.config.hook.pytest_openscope_fingerprint
    if hook.get_hookimpls():
        session.guard("the hook pytest_openscope_fingerprint", lambda: _ask(hook, failure))


def _ask(hook: Any, failure: Failure) -> None:
    try:
        name = hook(failure=copy.deepcopy(failure))
    except (pytest.fail.Exception, pytest.skip.Exception) as outcome:
        # These are no Exceptions: the guard would let them pass, and they would change the step's outcome.
        raise RuntimeError(f"it ended with {type(outcome).__name__}: {outcome}") from outcome
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"it returned {name!r:.100} -> return a text, or None for the ordinary fingerprint")
    name = " ".join(name.split())
    if len(name) > MAX_NAME_CHARS:
        from ..issues import fingerprint_of_name

        name = fingerprint_of_name(name)
    failure.fingerprint = name or failure.fingerprint


_ATTACHMENTS = "attachments"


def _keep_attachment(path: Path, session_folder: Path) -> tuple[Path, str]:
    """Return where an attached file lies and its name relative to the session folder.

    A file from outside is copied into the session folder first, never over another one.

    Raises:
        FileNotFoundError: there is no such file.
    """
    __tracebackhide__ = True
    source = path if path.is_absolute() else session_folder / path
    if not source.is_file():
        source = path.resolve()
    if not source.is_file():
        raise FileNotFoundError(f"{path}: no such file to attach")
    if not source.resolve().is_relative_to(session_folder.resolve()):
        source = _copy_in(source, session_folder / _ATTACHMENTS)
    return source, source.resolve().relative_to(session_folder.resolve()).as_posix()


def _copy_in(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    target, number = folder / source.name, 2
    while target.exists():
        target, number = folder / f"{source.stem}[{number}]{source.suffix}", number + 1
    shutil.copy2(source, target)
    return target
