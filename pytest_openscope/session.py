"""The experiment session: the one state object. It joins the parts; each hook and fixture forwards to it."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from . import LAUNCHER_FORMAT_VERSION, __version__
from .errors import ConfigurationError
from .folder import METADATA, create_session_folder, write_atomic, write_json
from .interrupts import Interrupts, Watchdog
from .journal import JOURNAL, Journal, now_iso
from .locks import FileLock, read_holder, write_holder
from .logs import SessionLog
from .masking import ExactMasker, mask_json
from .operator import Operator, real_descriptor
from .options import Options
from .phases import Gate, OnFailure, Outcome, Phase
from .processes import create_time
from .record import AcquisitionFacts, Failure, Measurement, SessionRecord, StepRecord

if TYPE_CHECKING:
    from .acquisition import Acquisition
    from .config import Configuration, PipelineEntry

_log = logging.getLogger("pytest_openscope.session")
_LOGGER = "pytest_openscope.session"
#: Room for the final states, kept from the start, so that a full disk does not take them too.
_RESERVE_BYTES = 256 * 1024
_RESERVE = ".reserved_for_the_end"
#: A session that has just ended holds its sidecar's lock for some moments.
_SIDECAR_LOCK_S = 3.0


class ExperimentSession:
    """Everything that one session knows and holds.

    Attributes:
        record: what happened so far; becomes ``end_state.json``.
        parameters: merged and expanded parameters.
        folder: the session folder.
        gate: which steps may still run.
    """

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
        self.mirror: dict[str, Any] = {"status": "off", "bytes_behind": 0, "reason": ""}
        self.reports: list[dict[str, Any]] = []
        self.acquisition: Acquisition | None = None
        self.devices: Any = None
        self.device_states: dict[str, Any] = {}
        self.sidecar: Any = None
        self.finished = False
        self._scripts: Any = None
        self._watch: Any = None
        self.recorder: Any = None
        self.terminal_fd: int | None = None
        self.exit_request: BaseException | None = None
        self._lock: FileLock | None = None
        self._faults: IO[str] | None = None
        self._after_finish: list[Callable[[], None]] = []

    # -- start -------------------------------------------------------------------------------------------------------

    def start(self, notices: Sequence[str]) -> None:
        """Take the rig, create the folder, and open log, journal and sidecar.

        Raises:
            pytest.UsageError: the rig is held, not ready, or the session folder cannot be created.
        """
        self.notices += list(notices)
        state = self.configuration.rig.state_directory
        self._check_readiness()
        if not self.dry_run:
            self._take_rig(state)
            self._recover(state)
        try:
            self._create_folder()
        except BaseException:
            self._free_rig()
            raise
        self._open_log()
        self._begin_journal(state)
        self._write_inputs()
        self._start_sidecar()
        if self.configuration.rig.devices:
            self._describe_devices()
        for text in self.options.inject:
            if text.startswith("acquisition="):
                self.record.simulated.append(f"injected: {text}")
                self.log.write("INFO", _LOGGER, f"injected: {text}")
        for notice in self.notices:
            self.log.write("WARNING", _LOGGER, notice)
        self.interrupts = Interrupts(self._on_interrupt)
        self.watchdog = Watchdog(self.interrupts.time_out, self._on_timeout, self._announce_deadline, self.settings.grace_s)
        self.operator._pause = self.watchdog.paused
        self.interrupts.install()

    def _check_readiness(self) -> None:
        block = self.configuration.rig.readiness
        if not block or self.dry_run or self.validating:
            return
        from .readiness import evaluate

        rig_file = str(self.configuration.rig_file)
        readiness = evaluate(block, self.configuration.rig.state_directory, local_now(), rig_file=rig_file)
        if readiness.ok:
            return
        reason = self.options.override_readiness
        if reason is not None:
            self.notices.append(
                f"readiness overridden by {self.settings.user_id or 'unknown user'}: {reason!r} ({readiness.message})"
            )
        elif readiness.refuse:
            raise pytest.UsageError(readiness.message)
        else:
            self.notices.append(readiness.message)

    def _take_rig(self, state: Path) -> None:
        rig_id = self.configuration.rig.rig_id
        lock, beside = FileLock(state / "rig.lock"), FileLock(state / "rig.sidecar.lock")
        try:
            if not lock.acquire(self.options.wait_for_rig_s):
                raise rig_is_held(read_holder(state / "rig.holder.json"), rig_id)
            if not beside.acquire(max(_SIDECAR_LOCK_S, self.options.wait_for_rig_s)):
                lock.release()
                raise rig_is_held(read_holder(state / "rig.holder.json"), rig_id)
        except OSError as error:
            raise pytest.UsageError(
                f"the rig's lock {lock.path} cannot be taken: {error} -> make the folder writable, or set state_directory"
            ) from None
        beside.release()
        self._lock = lock

    def _recover(self, state: Path) -> None:
        """Finish what earlier sessions of this rig left unfinished (a power cut, a killed sidecar)."""
        if not (state / "unfinished").is_dir():
            return
        try:
            from .sidecar.recovery import recover

            self.notices += recover(state, secrets=self.secrets)
        except Exception as error:
            self.notices.append(f"earlier sessions could not be looked after: {type(error).__name__}: {error}")
            _log.exception("recovery failed")

    def _free_rig(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _create_folder(self) -> None:
        start = local_now()
        root = self.settings.output_root / "validations" if self.validating else self.settings.output_root
        subject = self.settings.subject_id or ("validation" if self.validating else "subject")
        given = self.settings.session_uuid
        try:
            self.folder = create_session_folder(root, subject, start, given)
        except FileExistsError:
            raise pytest.UsageError(
                f"session_uuid: the session folder {root / str(given)} exists -> give another name; nothing is ever overwritten"
            ) from None
        except OSError as error:
            raise pytest.UsageError(
                f"output_root_folder: {root}: the session folder cannot be created: {error} -> give --output-root PATH"
            ) from None
        self.metadata = self.folder / METADATA
        self.record = SessionRecord(
            session_uuid=self.folder.name,
            subject_id=self.settings.subject_id,
            user_id=self.settings.user_id,
            rig_id=self.configuration.rig.rig_id,
            started=start.isoformat(timespec="microseconds"),
            dry_run=self.dry_run,
        )
        self.started = start
        if self._lock is not None:
            facts = {"session_uuid": self.folder.name, "pid": os.getpid(), "host": socket.gethostname()}
            write_holder(self._lock.path.parent / "rig.holder.json", **facts, since=self.record.started)
        try:
            expanded = self.configuration.expanded(self.folder.name, self.folder)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from None
        self.parameters, self.settings, self.rig = expanded.parameters, expanded.settings, expanded.rig
        self.entries = (*expanded.pre_pipeline, *expanded.post_pipeline)

    @property
    def secrets(self) -> frozenset[str]:
        """Exact values that may not appear anywhere."""
        return self.configuration.secrets

    def _open_log(self) -> None:
        self.log_path = self.folder / (self.settings.session_log or f"{METADATA}/launcher.log")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log.open(self.log_path, ExactMasker(self.secrets), on_lost=self._on_lost)
        with contextlib.suppress(OSError):
            write_atomic(self.metadata / _RESERVE, bytes(_RESERVE_BYTES))
        for line in self._header():
            self.log.write("INFO", _LOGGER, line)

    def _header(self) -> list[str]:
        record, settings = self.record, self.settings
        lines = [
            f"session {record.session_uuid} started {record.started}{' (DRY RUN)' if self.dry_run else ''}",
            f"subject {record.subject_id}, user {record.user_id}, rig {record.rig_id}, host {socket.gethostname()}",
            f"pytest-openscope {__version__} (launcher format {LAUNCHER_FORMAT_VERSION}), pytest {pytest.__version__}, "
            f"Python {platform.python_version()}, {platform.platform()}",
            f"command: {command_line()}",
            f"rig configuration {self.configuration.rig_file}, parameter file {self.configuration.parameter_file}",
            f"script {settings.script_path}, repository {settings.repository_url} at {settings.repository_commit_hash}",
            f"session folder: {self.folder}",
        ]
        return lines

    def _begin_journal(self, state: Path) -> None:
        settings = self.settings
        mirror = settings.centralized_log_directory if not self.dry_run else None
        self.journal = Journal(self.metadata / JOURNAL)
        self._faults = open(self.metadata / "faulthandler.log", "a", encoding="utf-8")  # noqa: SIM115 - open to the end
        report = settings.github_issue.as_json() if settings.github_issue else None
        self.journal.write(
            "session",
            session_uuid=self.record.session_uuid,
            subject_id=self.record.subject_id,
            user_id=self.record.user_id,
            rig_id=self.record.rig_id,
            started=self.record.started,
            pid=os.getpid(),
            create_time=create_time(os.getpid()),
            host=socket.gethostname(),
            dry_run=self.dry_run,
            session_folder=str(self.folder),
            session_log=str(self.log_path.relative_to(self.folder)),
            state_directory=str(state),
            mirror_directory=mirror,
            mirror_wait_s=settings.mirror_wait_s,
            mirror_finish_s=settings.mirror_finish_s,
            resource_interval_s=settings.resource_log_interval,
            on_crash=settings.on_crash,
            stop={
                "graceful_s": settings.stop_graceful_s,
                "terminate_s": settings.stop_terminate_s,
                "kill_s": settings.stop_kill_s,
            },
            version=__version__,
            command_line=mask_json(command_line(), self.secrets),
            resource_disk=str(self.folder),
            low_disk_gb=settings.low_disk_gb,
            low_memory_percent=settings.low_memory_percent,
            report=mask_json(report, self.secrets) if report else None,
            rig_config=mask_json(self.rig_config(), self.secrets),
        )
        if mirror:
            self.mirror = {"status": "pending", "bytes_behind": None, "reason": "not confirmed yet"}

    def _write_inputs(self) -> None:
        from .revisions import git_revisions

        secrets = self.secrets
        arguments = command_line()
        parameter_file = self.configuration.parameter_file
        files: dict[str, Any] = {
            "input_parameters.json": self.configuration.parameters,
            "processed_parameters.json": self.parameters,
            "command_line_arguments.json": {
                "command_line": " ".join(arguments),
                "arguments": arguments[1:],
                "working_directory": str(self.config.invocation_params.dir),
                "python_executable": sys.executable,
                "original_param_file": str(parameter_file) if parameter_file else None,
                "timestamp": self.record.started,
                "value_sources": dict(self.configuration.sources),
            },
        }
        for name, content in files.items():
            self._guard(f"writing {name}", partial(self._save, name, mask_json(content, secrets)))
        self._guard(
            "writing git_revisions.json", lambda: self._save("git_revisions.json", git_revisions([self.config.rootpath]))
        )

    def _save(self, name: str, content: Any) -> None:
        write_json(self.metadata / name, content)

    def _start_sidecar(self) -> None:
        def start() -> None:
            from .sidecar.client import SidecarClient
            from .sidecar.markers import mark_unfinished

            state = self.configuration.rig.state_directory
            mirror = None if self.dry_run else self.settings.centralized_log_directory
            mark_unfinished(state, self.folder.name, self.folder, mirror)
            self.sidecar = SidecarClient(
                self.journal, self.folder, self._on_message, secrets=self.secrets, terminal_fd=self.terminal_fd
            )

        self._guard("starting the sidecar", start)

    def _describe_devices(self) -> None:
        """List what is simulated, and what has changed since the last good session of this rig."""
        from . import rig_watch

        if self.dry_run:
            self._guard("listing the simulated devices", self._list_simulated)
        elif not self.validating:
            self._watch = rig_watch.RigWatch(self)
            self._watch.start()

    def _list_simulated(self) -> None:
        for line in self.device_manager().simulated():
            self.record.simulated.append(line)
            self.log.write("INFO", "pytest_openscope.devices", f"simulated: {line}")

    def _guard(self, what: str, action: Callable[[], object]) -> bool:
        """Run what only helps; a failure is logged with its traceback and shown in the summary, never raised."""
        try:
            action()
            return True
        except Exception as error:
            self.log.write("ERROR", _LOGGER, f"{what} failed\n{traceback.format_exc().rstrip()}")
            self.record.helper_failures.append(f"{what}: {type(error).__name__}: {error}")
            return False

    # -- what happens on the way -------------------------------------------------------------------------------------

    def _confirm(self, question: str) -> bool:
        try:
            return self.operator.confirm(question, default=False)
        except EOFError:
            return False

    def _on_lost(self, error: OSError) -> None:
        text = f"the session log cannot be written: {error}. The run goes on, the lost records are counted"
        self.notices.append(text)
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
                self.record.helper_failures.append(text)

    def _on_interrupt(self, count: int, cause: str) -> None:
        everything = count > 1
        self.gate.stop(f"interrupted by {cause}", everything=everything)
        text = f"{cause}: " + (
            "no more steps; devices are made safe" if everything else "stopping; post-acquisition runs, again to skip it"
        )
        self.log.write("WARNING", _LOGGER, text)
        self.stop_acquisitions(f"interrupted by {cause}")

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
        elif self._faults is not None:
            delay_s = max(0.1, kill_at - time.monotonic() - self.settings.grace_s / 2)
            faulthandler.dump_traceback_later(delay_s, file=self._faults)

    def enable_faulthandler(self) -> None:
        """Let the stacks of a segfault go to a file that the sidecar reads; pytest's own goes to stderr."""
        if self._faults is not None:
            faulthandler.enable(self._faults)

    def fail(self, failure: Failure) -> None:
        """Keep a failure; the first one is what ``debug_state.json`` describes."""
        from .snapshot import json_safe

        self.record.failures.append(failure)
        self.journal.write("failure", failure=mask_json(json_safe(failure.as_json()), self.secrets))

    def note(self, text: str) -> None:
        """Keep a note of the experimenter."""
        self.record.notes.append(text)
        logging.getLogger("pytest_openscope.notes").info("%s", text)

    def attach(self, path: Path) -> Path:
        """Register a result; a file from outside the session folder is copied into it, never over another one.

        Raises:
            FileNotFoundError: there is no such file.
        """
        source = path if path.is_absolute() else self.folder / path
        if not source.is_file():
            source = path.resolve()
        if not source.is_file():
            raise FileNotFoundError(f"{path}: no such file to attach")
        if not source.resolve().is_relative_to(self.folder.resolve()):
            source = self._copy_in(source)
        name = source.resolve().relative_to(self.folder.resolve()).as_posix()
        if name not in self.record.attachments:
            self.record.attachments.append(name)
        _log.info("attached %s", name)
        return source

    def _copy_in(self, source: Path) -> Path:
        import shutil

        folder = self.folder / "attachments"
        folder.mkdir(exist_ok=True)
        target, number = folder / source.name, 2
        while target.exists():
            target, number = folder / f"{source.stem}[{number}]{source.suffix}", number + 1
        shutil.copy2(source, target)
        return target

    def measured(self, measurement: Measurement) -> None:
        """Keep a measured value."""
        steps = self.record.steps
        measurement.step = steps[-1].name if steps else ""
        self.record.measurements.append(measurement)
        limits = f" (limits {measurement.minimum} to {measurement.maximum})" if not measurement.passed else ""
        level = logging.INFO if measurement.passed else logging.ERROR
        logger = logging.getLogger("pytest_openscope.measurements")
        logger.log(level, "%s = %s %s%s", measurement.name, measurement.value, measurement.unit, limits)

    def acquisition_api(self) -> Acquisition:
        """Return what runs acquisition programs, made when first asked for."""
        if self.acquisition is None:
            from .acquisition import Acquisition, commands, parse_fault

            faults = [text.partition("=")[2] for text in self.options.inject if text.startswith("acquisition=")]
            self.acquisition = Acquisition(
                self.folder,
                self._on_output,
                self._on_acquisition_event,
                defaults=commands.defaults(self.parameters),
                dry_run=self.dry_run,
                fault=parse_fault(faults[0]) if faults else None,
                echo=self._echo,
            )
        return self.acquisition

    def device_manager(self) -> Any:
        """Return the rig's devices; those that are opened eagerly are open."""
        if self.devices is None:
            from .devices.faults import parse_injections, split
            from .devices.manager import DeviceManager
            from .devices.spec import build_specs

            rig = self.rig
            faults, _ = parse_injections(self.options.inject, list(rig.devices), dry_run=self.dry_run)
            self.devices = DeviceManager(
                build_specs(rig.devices),
                rig_dir=rig.path.parent,
                dry_run=self.dry_run,
                injections=split(faults)[0],
                on_event=self.journal.write,
            )
        return self.devices

    def expanded_entry(self, entry: PipelineEntry) -> PipelineEntry:
        """Return a pipeline entry with its placeholders replaced."""
        return next(one for one in self.entries if (one.phase, one.name) == (entry.phase, entry.name))

    def module_context(self, entry: PipelineEntry) -> Any:
        """Return what a pipeline step may use."""
        from .modules.context import ModuleContext

        if self._scripts is None:
            from .modules.scripts import ScriptImports

            self._scripts = ScriptImports()
        own = self.expanded_entry(entry)
        folders = [self.config.invocation_params.dir]
        if self.configuration.parameter_file is not None:
            folders.insert(0, self.configuration.parameter_file.parent)
        return ModuleContext(
            parameters={**self.parameters, **own.parameters},
            session_folder=self.folder,
            repository=self.repository,
            folders=tuple(folders),
            dry_run=self.dry_run,
            no_input=not self.operator.available,
            operator=self.operator,
            logger=logging.getLogger(f"pytest_openscope.modules.{own.name}"),
            note=self.note,
            record=self._record_value,
            attach=self.attach,
            set_experiment_notes=self._set_notes,
            expand=self.configuration.expander(self.folder.name, self.folder),
            scripts=self._scripts,
        )

    def _record_value(self, name: str, value: Any, unit: str = "", **limits: Any) -> None:
        self.measured(Measurement(name, value, unit, **limits))

    def _set_notes(self, text: str) -> None:
        self.record.operator_notes = text

    @property
    def repository(self) -> Path | None:
        """Where the experiment's repository lies, when the parameters name one."""
        from .acquisition.commands import repository_folder

        return repository_folder(self.parameters)

    def simulate(self, what: str, would: str) -> None:
        """Note that a dry run did not do something."""
        self.record.simulated.append(what)
        _log.info("dry run: would %s", would)

    def _on_acquisition_event(self, event: str, **fields: Any) -> None:
        if event == "acquisition_batch":
            fields["log_size"] = self.log.size
        elif event == "acquisition_started":
            fields["command"] = mask_json(fields["command"], self.secrets)
        self.journal.write(event, **fields)

    def _on_output(self, source: str, lines: Sequence[bytes], raw_from: int, raw_to: int) -> int:
        return self.log.write_output(f"acquisition.{source}", lines)

    def _echo(self, stream: str, lines: Sequence[bytes]) -> None:
        with contextlib.suppress(OSError):
            os.write(real_descriptor(self.config, 1), b"\n".join([*lines, b""]))

    def begin_post_acquisition(self) -> None:
        """Write the provisional end state that post-acquisition modules read."""
        from .snapshot import END_STATE, end_state

        self._collect_acquisitions()
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

    def _collect_acquisitions(self) -> None:
        if self.acquisition is not None:
            self.record.acquisitions = list(self.acquisition.finished)

    # -- end ---------------------------------------------------------------------------------------------------------

    def finish(self, exit_code: int | None) -> None:
        """End the session once: devices, notes, states, log, mirror; the rig is free on return."""
        if self.finished:
            return
        self.finished = True
        from .ending import finish

        try:
            finish(self, exit_code)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.watchdog.stop()
            self.interrupts.restore()
            self._free_rig()

    def add_step(self, name: str, nodeid: str, phase: Phase, policy: OnFailure, kind: str) -> StepRecord:
        """Begin the record of a step."""
        step = StepRecord(name, nodeid, phase, policy, kind, started=now_iso())
        self.record.steps.append(step)
        return step

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


def rig_is_held(holder: dict[str, Any], rig_id: str) -> pytest.UsageError:
    """Say who holds the rig, as one usage error."""
    who = "another session"
    if holder:
        place = f"pid {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        who = f"session {holder.get('session_uuid')} ({place})"
    return pytest.UsageError(f"rig {rig_id} is in use by {who} -> wait for its end, or give --wait-for-rig SECONDS")


def local_now() -> datetime:
    """The local time with its UTC offset."""
    return datetime.now().astimezone()


def command_line() -> list[str]:
    """The command line of this process."""
    return list(getattr(sys, "orig_argv", sys.argv))
