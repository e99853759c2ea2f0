"""The start of a session: the rig taken, the folder made, log, journal and sidecar opened; counterpart of :mod:`.ending`."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import LAUNCHER_FORMAT_VERSION, __version__
from ..checks import TIMEOUT_S
from ..config import source_of
from ..log import ExactMasker, mask_json, mask_text
from ..records import JOURNAL, METADATA, ConfigurationError, Journal, SessionRecord, create_session_folder
from ..sidecar import SidecarClient, mark_unfinished
from ..system import create_time, keep_apart, parse_duration_s, remarks, run_probe, write_atomic, write_json
from ..views import LiveServer, parse_address
from .as_run import keep_as_run
from .continuing import link_back
from .operator import say_at_once
from .other_nodes import meet_other_nodes
from .questions import Questions
from .repository import prepare_repository, write_revisions
from .rig import RigWatch, alert_urls, check_readiness, recover_earlier, take_rig, tell_of_crashes
from .step_tools import devices_of

if TYPE_CHECKING:
    from .state import SessionState

_LOGGER = "pytest_openscope.session"
#: Room for the final states, kept from the start, so that a full disk does not take them too.
_RESERVE_BYTES = 256 * 1024
RESERVE = ".reserved_for_the_end"
#: With less room at its start a session could keep neither its log nor its states.
_NEEDED_BYTES = 1_000_000


def open_session(session: SessionState) -> None:
    """Take the rig, create the folder, and open log, journal and sidecar.

    Raises:
        pytest.UsageError: the rig is held, not ready, or the session folder cannot be created.
    """
    check_readiness(session)
    root = _root_of(session)
    if not session.dry_run:
        take_rig(session)
    try:
        if not session.dry_run:
            recover_earlier(session)
        if session.settings.session_sync_role is not None:
            session.nodes = meet_other_nodes(session, root, _given_name(session, root))
        session.interrupts.hold()
        _create_folder(session, root)
    except BaseException:
        if session.nodes is not None:
            session.nodes.close()
        session.free_rig()
        raise
    facts = _session_facts(session)
    # The next session on this rig finds this one from its first moment on.
    marked = (session.configuration.rig.state_directory, session.folder.name, session.folder, facts["mirror_directory"], facts)
    session.guard("noting the unfinished session", partial(mark_unfinished, *marked))
    _open_log(session)
    _begin_journal(session, facts)
    if session.nodes is not None:
        session.nodes.begin()
    _write_inputs(session)
    session.guard("starting the sidecar", partial(_start_sidecar, session))
    if session.options.live:
        session.guard("starting the live page", partial(_start_live_page, session))
    if session.settings.repository_url:
        prepare_repository(session)
    keep_as_run(session)
    _describe_devices(session)
    if not session.dry_run:
        session.guard("looking for sessions that died", partial(tell_of_crashes, session))
    session.notices += remarks(root, session.configuration.rig.state_directory, os.environ)
    for notice in session.notices:
        session.log.write("WARNING", _LOGGER, notice)
    if session.earlier is not None and (not session.dry_run or session.earlier.of_a_dry_run):
        session.guard("naming this session in the one that it continues", partial(link_back, session.earlier, session.folder))
    _look_for_token(session)
    if not (session.dry_run or session.validating):
        session.rig_watch = RigWatch(session)
        session.guard("comparing the rig with its last good session", session.rig_watch.start)


def reports_failures(session: SessionState) -> bool:
    """Tell whether a failure of this session becomes an issue."""
    report = session.settings.github_issue
    if report is None or not report.enabled or session.validating:
        return False
    return not session.dry_run or report.report_dry_runs


def _look_for_token(session: SessionState) -> None:
    """Warn at once of reports that cannot be sent for want of a token; the summary repeats it where it is seen."""
    report = session.settings.github_issue
    if report is not None and reports_failures(session):
        from ..issues import missing_token

        session.missing_token = missing_token(report, os.environ)
    if session.missing_token:
        session.log.write("WARNING", "pytest_openscope.issues", session.missing_token)


def _root_of(session: SessionState) -> Path:
    """Return where the session folder goes: a validation that finds the output root dead lies beside the rig's state.

    Raises:
        pytest.UsageError: the state directory of a rig to validate cannot be written.
    """
    output_root, state = session.settings.output_root, session.configuration.rig.state_directory
    if not session.validating:
        return output_root
    if session.dry_run:
        return output_root / "validations"
    try:
        timeout_s = parse_duration_s(session.configuration.rig.requirements.get("timeout_s"))
    except ValueError:
        timeout_s = TIMEOUT_S
    problem = run_probe("folder", timeout_s, path=str(state)).get("error")
    if problem:
        raise pytest.UsageError(f"state_directory: {state} cannot be written: {problem} -> mend it, or give another one")
    root = output_root / "validations"
    problem = run_probe("folder", timeout_s, path=str(root)).get("error")
    if not problem:
        return root
    session.notices.append(f"{root}: {problem}; this validation's folder is in {state / 'validations'}")
    return state / "validations"


def _create_folder(session: SessionState, root: Path) -> None:
    start = datetime.now().astimezone()
    settings, configuration = session.settings, session.configuration
    subject = settings.subject_id or ("validation" if session.validating else "subject")
    agreed = session.nodes.session_name if session.nodes is not None else None
    given = agreed or _given_name(session, root)
    _refuse_a_full_disk(root)
    session.made_roots = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        session.folder = create_session_folder(root, subject, start, given)
    except FileExistsError:
        key, remedy = "session_uuid", "give another name"
        if agreed is not None:
            key, remedy = (
                f"session_sync_role {settings.session_sync_role}",
                "give each PC of a session its own output_root_folder",
            )
        problem = f"the session folder {root / str(given)} exists, and nothing is ever overwritten"
        raise pytest.UsageError(f"{key}: {problem} -> {remedy}") from None
    except OSError as error:
        # A name that is too long was refused with the other mistakes: this is the folder, or the whole path.
        raise pytest.UsageError(
            f"output_root_folder: {root}: the session folder cannot be created: {error.strerror or error}"
            " -> give --output-root PATH"
        ) from None
    session.metadata = session.folder / METADATA
    session.record = SessionRecord(
        session_uuid=session.folder.name,
        subject_id=settings.subject_id,
        user_id=settings.user_id,
        rig_id=configuration.rig.rig_id,
        started=start.isoformat(timespec="microseconds"),
        dry_run=session.dry_run,
        readiness_override=session.readiness_override,
        continues=session.earlier.as_json() if session.earlier is not None else None,
    )
    session.started, session.started_s = start, time.monotonic()
    if session.rig_lock is not None:
        facts = {"session_uuid": session.folder.name, "pid": os.getpid(), "host": socket.gethostname()}
        # Best effort: the lock itself is the truth.
        with contextlib.suppress(OSError):
            write_json(session.rig_lock.path.parent / "rig.holder.json", {**facts, "since": session.record.started})
    try:
        expand(session)
    except ConfigurationError:
        for folder in (session.metadata, session.folder):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    session.log_path = session.folder / (session.settings.session_log or f"{METADATA}/launcher.log")


def expand(session: SessionState) -> None:
    """Replace the placeholders that stand for the session's name and folder; raises ``ConfigurationError``."""
    expanded = session.configuration.expanded(session.folder.name, session.folder)
    session.parameters, session.settings, session.rig = expanded.parameters, expanded.settings, expanded.rig
    session.own_parameters = expanded.own_parameters
    session.entries = (*expanded.pre_pipeline, *expanded.post_pipeline)


def _given_name(session: SessionState, root: Path) -> str | None:
    if session.earlier is not None and not source_of(session.configuration.sources, "session_uuid").startswith("--"):
        return session.earlier.name_in(root)
    return session.settings.session_uuid


def _refuse_a_full_disk(root: Path) -> None:
    """Raise before anything is created; a disk that does not tell its room is tried."""
    existing = next((folder for folder in (root, *root.parents) if folder.is_dir()), root)
    free_bytes = _NEEDED_BYTES
    with contextlib.suppress(OSError):
        free_bytes = shutil.disk_usage(existing).free
    if free_bytes < _NEEDED_BYTES:
        raise pytest.UsageError(
            f"output_root_folder: {root}: the disk is full: {free_bytes / 1e6:.2f} MB are free, and log and states of a session"
            f" take {_NEEDED_BYTES / 1e6:g} MB and more -> make room, or give --output-root PATH on another disk"
        )


def _session_facts(session: SessionState) -> dict[str, Any]:
    settings, record, secrets = session.settings, session.record, session.secrets
    # What a check finds is for the person who validates, and in any case no defect of the experiment.
    report = settings.github_issue.as_json() if settings.github_issue and not session.validating else None
    # A dry run tells nobody unless it is asked to, and what a validation finds is for the person who validates.
    alerts, otel = (
        block if block is not None and not session.validating and (block.dry_runs or not session.dry_run) else None
        for block in (settings.alerts, settings.otel)
    )
    return {
        "session_uuid": record.session_uuid,
        "subject_id": record.subject_id,
        "user_id": record.user_id,
        "rig_id": record.rig_id,
        "started": record.started,
        "pid": os.getpid(),
        "create_time": create_time(os.getpid()),
        "host": socket.gethostname(),
        "dry_run": session.dry_run,
        "session_folder": str(session.folder),
        "session_log": str(session.log_path.relative_to(session.folder)),
        "state_directory": str(session.configuration.rig.state_directory),
        "mirror_directory": settings.centralized_log_directory if not session.dry_run else None,
        "mirror_wait_s": settings.mirror_wait_s,
        "mirror_finish_s": settings.mirror_finish_s,
        "resource_interval_s": settings.resource_log_interval,
        "on_crash": settings.on_crash,
        "grace_s": settings.grace_s,
        "stop": {
            "graceful_s": settings.stop_graceful_s,
            "terminate_s": settings.stop_terminate_s,
            "kill_s": settings.stop_kill_s,
        },
        "version": __version__,
        "import_path": [entry for entry in sys.path if Path(entry).is_absolute()],
        "command_line": mask_json(command_line(), secrets),
        "resource_disk": str(session.folder),
        "low_disk_gb": settings.low_disk_gb,
        "session_report": settings.session_report,
        "low_memory_percent": settings.low_memory_percent,
        "alerts": alerts.model_dump(mode="json", exclude={"to"}) if alerts is not None else None,
        "otel": otel.model_dump(mode="json") if otel is not None else None,
        "report": mask_json(report, secrets) if report else None,
        "rig_config": mask_json(session.rig_config(), secrets),
        "readiness_override": mask_json(record.readiness_override, secrets),
        "continues": record.continues,
    }


def _open_log(session: SessionState) -> None:
    session.log_path.parent.mkdir(parents=True, exist_ok=True)
    session.log.open(session.log_path, ExactMasker(session.secrets), on_lost=session.lose_records)
    with contextlib.suppress(OSError):
        write_atomic(session.metadata / RESERVE, bytes(_RESERVE_BYTES))
    for line in _header(session):
        session.log.write("INFO", _LOGGER, line)


def _header(session: SessionState) -> list[str]:
    record, settings, configuration = session.record, session.settings, session.configuration
    files = {"rig configuration": configuration.rig_file, "parameter file": configuration.parameter_file}
    repository, commit = settings.repository_url, settings.repository_commit_hash
    code = {"script": settings.script_path, "repository": f"{mask_text(repository)} at {commit}" if repository else None}
    lines = [
        f"session {record.session_uuid} started {record.started}{' (DRY RUN)' if session.dry_run else ''}",
        *([f"continues {record.continues['session_uuid']} as number {record.continues['number']}"] if record.continues else []),
        f"subject {record.subject_id}, user {record.user_id}, rig {record.rig_id}, host {socket.gethostname()}",
        f"pytest-openscope {__version__} (launcher format {LAUNCHER_FORMAT_VERSION}), pytest {pytest.__version__}, "
        f"Python {platform.python_version()}, {platform.platform()}",
        f"command: {command_line()}",
        *(", ".join(f"{what} {value}" for what, value in part.items() if value) for part in (files, code)),
        f"session folder: {session.folder}",
    ]
    return [line for line in lines if line]


def _begin_journal(session: SessionState, facts: dict[str, Any]) -> None:
    session.journal = Journal(session.metadata / JOURNAL)
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    session.faults = os.fdopen(keep_apart(os.open(session.metadata / "faulthandler.log", flags, 0o644)), "a", encoding="utf-8")
    session.journal.write("session", **facts)
    session.log.on_clock_change = session.note_clock_change
    if facts["mirror_directory"]:
        session.mirror = {"status": "pending", "bytes_behind": None, "reason": "not confirmed yet"}


def _write_inputs(session: SessionState) -> None:
    arguments = command_line()
    parameter_file = session.configuration.parameter_file
    files: dict[str, Any] = {
        "input_parameters.json": session.configuration.parameters,
        "processed_parameters.json": session.parameters,
        "command_line_arguments.json": {
            "command_line": " ".join(arguments),
            "arguments": arguments[1:],
            "working_directory": str(session.config.invocation_params.dir),
            "python_executable": sys.executable,
            "original_param_file": str(parameter_file) if parameter_file else None,
            "timestamp": session.record.started,
            "value_sources": dict(session.configuration.sources),
        },
    }
    for name, content in files.items():
        session.guard(f"writing {name}", partial(session.save, name, mask_json(content, session.secrets)))
    session.guard("writing git_revisions.json", partial(write_revisions, session))


def _start_sidecar(session: SessionState) -> None:
    session.sidecar = SidecarClient(
        session.folder,
        session.take_message,
        secrets=session.secrets,
        alert_urls=alert_urls(session),
        terminal_fd=session.terminal_fd,
    )


def _start_live_page(session: SessionState) -> None:
    """Start the page's process, and let questions be answered there as well; its address is for the operator's eyes only."""

    def ended(code: int) -> None:
        if not session.finished:
            text = f"the live page has ended with code {code}; launcher_metadata/live_page.log may tell why"
            session.log.write("WARNING", _LOGGER, text)
        questions.lose_page(f"the live page has ended with code {code}")

    def tell(event: str, **fields: Any) -> None:
        session.journal.write(event, **mask_json(fields, session.secrets))

    operator = session.operator
    questions = Questions(tell, terminal=operator.available)
    server = LiveServer(*parse_address(session.options.live))
    try:
        server.start(session.folder, ended)
    finally:
        server.close()
    session.questions = questions
    if operator.available or not (session.options.request.no_input or os.environ.get("CI")):
        operator.share(questions)
    say_at_once(session.config, f"live page: {server.url}")
    reach = (
        "this computer only" if server.is_local else "every computer that reaches this one; whoever has its address may answer"
    )
    session.log.write("INFO", _LOGGER, f"the live page is served to {reach}")


def _describe_devices(session: SessionState) -> None:
    """Stamp devices, stand-ins and injected faults on record, log and journal."""
    devices: dict[str, dict[str, Any]] = {
        name: {"driver": options.get("driver"), "dry_run": session.dry_run, "simulated": None}
        for name, options in session.rig.devices.items()
    }
    if session.dry_run and devices:
        session.guard("listing the simulated devices", partial(_list_simulated, session, devices))
    for text in session.options.acquisition_faults:
        session.keep("simulated", f"injected: {text}")
        session.log.write("INFO", _LOGGER, f"injected: {text}")
    if devices:
        session.keep("devices", devices)
    if session.dry_run and session.settings.session_sync_role is not None:
        session.simulate("session sync", f"meet the other PCs as {session.settings.session_sync_role}")


def _list_simulated(session: SessionState, devices: dict[str, dict[str, Any]]) -> None:
    manager = devices_of(session)
    for name, words in manager.stand_ins().items():
        devices[name]["simulated"] = words
    for line in manager.simulated():
        session.keep("simulated", line)
        session.log.write("INFO", "pytest_openscope.devices", f"simulated: {line}")


def command_line() -> list[str]:
    return list(getattr(sys, "orig_argv", sys.argv))
