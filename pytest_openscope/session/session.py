"""The experiment session: the one state object. It joins the parts; each hook and fixture forwards to it."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from ..log import SessionLog, mask_json
from ..records import (
    AcquisitionFacts,
    Failure,
    Gate,
    Measurement,
    OnFailure,
    Outcome,
    Phase,
    SessionRecord,
    StepRecord,
    json_safe,
    to_json,
)
from ..system import FileLock, now_iso, write_json
from .interrupts import Interrupts, Watchdog
from .operator import Operator, say_at_once
from .options import Options

if TYPE_CHECKING:
    from datetime import datetime

    from pydantic import BaseModel

    from ..acquisition import Acquisition
    from ..config import Configuration, PipelineEntry, Rig
    from ..records import Journal

_log = logging.getLogger("pytest_openscope.session")
_LOGGER = "pytest_openscope.session"


class ExperimentSession:
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
    parameters: dict[str, Any]
    own_parameters: BaseModel | None
    rig: Rig
    entries: tuple[PipelineEntry, ...]
    journal: Journal

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
        self.validating = options.validate_rig
        self.gate = Gate(self._confirm)
        self.notices: list[str] = []
        self.configuration_notices: tuple[str, ...] = ()
        self.readiness_override: dict[str, Any] | None = None
        self.notices_shown = 0
        self.mirror: dict[str, Any] = {"status": "off", "bytes_behind": 0, "reason": ""}
        self.reports: list[dict[str, Any]] = []
        self.missing_token = ""
        self.acquisition: Acquisition | None = None
        self.devices: Any = None
        self.device_states: dict[str, Any] = {}
        self.sidecar: Any = None
        self.finished = self.collected = self.discarded = False
        self.ending = False
        self.pid = os.getpid()
        self.step_limit_s: float | None = None
        self.attempt = 1
        #: Folders above the session's that were made for it, the lowest first.
        self.made_roots: list[Path] = []
        self.scripts: Any = None
        self.rig_watch: Any = None
        self.recorder: Any = None
        self.terminal_fd: int | None = None
        self.exit_request: BaseException | None = None
        self.rig_lock: FileLock | None = None
        self.faults: IO[str] | None = None

    # -- start -------------------------------------------------------------------------------------------------------

    def start(self, notices: Sequence[str], not_checked: Sequence[str] = ()) -> None:
        """Take the rig, create the folder, and open log, journal and sidecar; signals are held then (``interrupts.release``).

        Raises:
            pytest.UsageError: the rig is held, not ready, or the session folder cannot be created.
        """
        from .opening import open_session

        self.notices += list(notices)
        self.configuration_notices = tuple(notices)
        self.interrupts = Interrupts(self._on_interrupt, lambda: self.watchdog.overdue())
        self.watchdog = Watchdog(self.interrupts.time_out, self._on_timeout, self._announce_deadline, self.settings.grace_s)
        self.config.add_cleanup(self.interrupts.restore)
        self.interrupts.install()
        open_session(self)
        if not_checked:
            self.keep("not_checked", *not_checked)
        for text in not_checked:
            self.log.write("WARNING", _LOGGER, f"not checked here: {text}")
        self.operator._pause = self.watchdog.paused

    def free_rig(self) -> None:
        """Let another session have the rig."""
        lock, self.rig_lock = self.rig_lock, None
        if lock is not None:
            lock.release()

    @property
    def secrets(self) -> frozenset[str]:
        """Exact values that may not appear anywhere."""
        return self.configuration.secrets

    def _save(self, name: str, content: Any) -> None:
        write_json(self.metadata / name, content)

    def _guard(self, what: str, action: Callable[[], object]) -> bool:
        """Run what only helps; a failure is logged with its traceback and shown in the summary, never raised."""
        try:
            action()
            return True
        except Exception as error:
            self.log.write("ERROR", _LOGGER, f"{what} failed\n{traceback.format_exc().rstrip()}")
            self.keep("helper_failures", f"{what}: {type(error).__name__}: {error}")
            return False

    # -- what happens on the way -------------------------------------------------------------------------------------

    def fresh_notices(self) -> list[str]:
        """Return what the terminal has not shown yet."""
        fresh = self.notices[self.notices_shown :]
        self.notices_shown += len(fresh)
        return fresh

    def _confirm(self, question: str) -> bool:
        try:
            return self.operator.confirm(question, default=False)
        except EOFError:
            return False

    def _on_lost(self, error: OSError) -> None:
        text = f"the session log cannot be written: {error}. The run goes on, the lost records are counted"
        self.notices.append(text)
        self.keep("lost_records", self.log.lost_records)
        with contextlib.suppress(OSError, ValueError):
            print(f"\nWARNING: {text}", file=sys.__stderr__)

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "say":
            level, text = str(message.get("level", "INFO")), str(message.get("text", ""))
            self.log.write(level, str(message.get("logger", "pytest_openscope.sidecar")), text)
            if message.get("terminal"):
                self.notices.append(text)
        elif kind == "mirror":
            self.mirror = {key: message.get(key) for key in ("status", "bytes_behind", "reason")}
        elif kind == "report":
            self.reports.append(message)
            if not self.finished and message.get("issue_url"):
                self.log.write("INFO", "pytest_openscope.issues", f"reported: {message['issue_url']} ({message.get('status')})")
        elif kind in ("restarted", "gave_up"):
            text = f"the sidecar {'was started again' if kind == 'restarted' else 'is gone'}: {message.get('reason')}"
            self.log.write("WARNING", "pytest_openscope.sidecar", text)
            if kind == "gave_up":
                self.keep("helper_failures", text)
                if self.mirror["status"] == "pending":
                    self.mirror = {**self.mirror, "reason": f"{text}; the next session on this rig finishes it"}

    def _on_interrupt(self, count: int, cause: str) -> None:
        everything = count > 1
        self.gate.stop(f"interrupted by {cause}", everything=everything)
        text = f"{cause}: {self._what_an_interrupt_does(everything)}"
        self.log.write("WARNING", _LOGGER, text)
        say_at_once(self.config, text)
        self.stop_acquisitions(f"interrupted by {cause}")

    def _what_an_interrupt_does(self, everything: bool) -> str:
        """Say what happens now, and how long it may take."""
        if self.ending:
            return "the session is ending already: devices are made safe, the states are written"
        running = self.acquisition.active if self.acquisition is not None else []
        stopping = ""
        if running:
            longest_s = max(run.spec.stop.longest_s for run in running)
            stopping = f"stopping {', '.join(run.name for run in running)} (at most {longest_s:g} s); "
        if everything:
            return f"{stopping}no more steps; devices are made safe"
        if not self.gate.acquisition_begun:
            return f"{stopping}stopping; no acquisition has begun, so the session ends; devices are made safe"
        return f"{stopping}stopping; post-acquisition runs, again to skip it"

    def stop_acquisitions(self, reason: str) -> None:
        """Ask what is running to stop, without waiting; the step that runs it waits."""
        if self.acquisition is not None:
            self._guard("stopping the acquisition", partial(self.acquisition.stop_all, reason, wait=False))

    def _on_timeout(self, text: str) -> None:
        """In the watchdog's thread: leave the stacks of all threads in the log before the step is interrupted."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = [text]
        for ident, frame in sys._current_frames().items():
            parts.append(f"--- thread {names.get(ident, ident)}\n" + "".join(traceback.format_stack(frame)).rstrip())
        self.log.write("ERROR", "pytest_openscope.timeout", "\n".join(parts))
        if text.startswith("session timeout"):
            self.gate.stop(text)

    def _announce_deadline(self, kill_at: float | None, what: str) -> None:
        self.journal.write("deadline", kill_at=kill_at, what=what)
        if kill_at is None:
            faulthandler.cancel_dump_traceback_later()
        elif self.faults is not None:
            delay_s = max(0.1, kill_at - time.monotonic() - self.settings.grace_s / 2)
            faulthandler.dump_traceback_later(delay_s, file=self.faults)

    def enable_faulthandler(self) -> None:
        """Let the stacks of a segfault go to a file that the sidecar reads; pytest's own goes to stderr."""
        if self.faults is not None:
            faulthandler.enable(self.faults)

    def fail(self, failure: Failure) -> None:
        """Keep a failure; the first one is what ``debug_state.json`` describes."""
        from .naming import name_by_hook

        name_by_hook(self, failure)
        self.keep("failures", failure)

    def keep(self, field: str, *values: Any) -> None:
        """Take values into a field of the record; they survive this process once this returns.

        Adds to a list, sets any other field. See :meth:`.SessionRecord.take`.
        """
        self.record.take(field, values)
        self.journal.write("kept", field=field, values=mask_json(json_safe([to_json(value) for value in values]), self.secrets))

    def note(self, text: str) -> None:
        """Keep a note of the experimenter."""
        self.keep("notes", text)
        logging.getLogger("pytest_openscope.notes").info("%s", text)

    def attach(self, path: Path) -> Path:
        """Register a result; a file from outside the session folder is copied into it, never over another one.

        Raises:
            FileNotFoundError: there is no such file.
        """
        __tracebackhide__ = True
        from .attachments import keep

        kept, name = keep(path, self.folder)
        if name not in self.record.attachments:
            self.keep("attachments", name)
        _log.info("attached %s", name)
        return kept

    def measured(self, measurement: Measurement) -> None:
        """Keep a measured value."""
        steps = self.record.steps
        measurement.step = steps[-1].name if steps else ""
        self.keep("measurements", measurement)
        unit = f" {measurement.unit}" if measurement.unit else ""
        limits = "" if measurement.passed else f" (limits {measurement.limits})"
        level = logging.INFO if measurement.passed else logging.ERROR
        logger = logging.getLogger("pytest_openscope.measurements")
        logger.log(level, "%s = %s%s%s", measurement.name, measurement.value, unit, limits)

    def acquisition_api(self) -> Acquisition:
        """Return what runs acquisition programs, made when first asked for."""
        if self.acquisition is None:
            from .session_parts import make_acquisition

            self.acquisition = make_acquisition(self)
        self.acquisition.attempt = self.attempt
        return self.acquisition

    def device_manager(self) -> Any:
        """Return the rig's devices, made when first asked for."""
        if self.devices is None:
            from .session_parts import make_devices

            self.devices = make_devices(self)
        return self.devices

    def expanded_entry(self, entry: PipelineEntry) -> PipelineEntry:
        """Return a pipeline entry with its placeholders replaced."""
        return next(one for one in self.entries if (one.phase, one.name) == (entry.phase, entry.name))

    def module_context(self, entry: PipelineEntry) -> Any:
        """Return what a pipeline step may use."""
        from .session_parts import make_module_context

        return make_module_context(self, self.expanded_entry(entry))

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
        """Write the provisional end state that post-acquisition modules read."""
        from ..records import END_STATE, end_state

        self._guard(
            "writing the provisional end_state.json",
            lambda: self._save(
                END_STATE,
                end_state(
                    self.record,
                    rig_config=self.rig_config(),
                    mirror=self.mirror,
                    provisional=True,
                    secrets=self.secrets,
                ),
            ),
        )

    # -- end ---------------------------------------------------------------------------------------------------------

    def finish(self, exit_code: int | None) -> None:
        """End the session once: devices, notes, states, log, mirror; the rig is free on return."""
        if self.finished:
            return
        self.finished = self.ending = True
        from .ending import discard, finish

        self.discarded = exit_code == pytest.ExitCode.USAGE_ERROR and not self.collected
        try:
            if self.discarded:
                discard(self)
            else:
                finish(self, exit_code)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.watchdog.stop()
            self.interrupts.over()
            self.free_rig()

    def end_a_fork(self) -> None:
        """End this process if it is a copy that a step made with ``os.fork`` and let leave its step.

        It would run the other steps, switch off the parent's hardware and write the parent's states once more.
        """
        if os.getpid() != self.pid:
            text = f"a fork of the experiment process (pid {os.getpid()}) left its step and was ended: end it with os._exit"
            self.log.write("WARNING", _LOGGER, text)
            os._exit(1)

    def add_step(self, name: str, nodeid: str, phase: Phase, policy: OnFailure, kind: str) -> StepRecord:
        """Begin the record of a step."""
        step = StepRecord(name, nodeid, phase, policy, kind, started=now_iso())
        self.record.steps.append(step)
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
