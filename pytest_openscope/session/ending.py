"""The end of a session that Python sees: devices safe, notes, states, footer, log closed, mirror confirmed."""

from __future__ import annotations

import contextlib
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ..records import DEBUG_STATE, METADATA, Failure, Outcome, Phase, debug_state
from ..system import now_iso, remove_file
from .interrupts import StepInterrupted, StepTimedOut
from .opening import RESERVE, reports_failures
from .repository import tell_of_new_changes

if TYPE_CHECKING:
    from .state import SessionState

_LOGGER = "pytest_openscope.session"
_LOOK_S = 0.02
#: A sidecar that has just been started has little to end, but a slow computer may still be starting it, and on Windows its open
#: files keep the folder.
_DISCARD_S = 30.0


def finish(session: SessionState, exit_code: int | None) -> None:
    """Do everything that ends a session, each part guarded alone, so that none can take the others with it."""
    record = session.record
    session.log.set_place(str(Phase.POST_ACQUISITION), None)
    session.doing = "ending: the devices are made safe"
    _stop_hardware(session)
    if session.settings.repository_url:
        session.guard("looking for changes in the repository", partial(tell_of_new_changes, session))
    nodes = session.nodes
    if nodes is not None:
        session.guard("telling the other nodes how this one ended", nodes.end)
    session.journal.write("ending", outcome=str(record.outcome))
    session.doing = "ending"
    _ask_notes(session)
    if nodes is not None:
        session.doing = "ending: waiting for the other PCs"
        session.guard("waiting for the other nodes", nodes.wait_for_others)
    record.exit_code = exit_code if exit_code is not None else 2 if record.outcome is Outcome.INTERRUPTED else 1
    if record.failures:
        record.exit_code = record.exit_code or 1
    record.stopped = now_iso()
    record.duration_s = round(time.monotonic() - session.started_s, 3)
    record.lost_records = session.log.lost_records
    _explain(session)
    with contextlib.suppress(OSError):
        remove_file(session.metadata / RESERVE)
    _write_states(session)
    _write_footer(session)
    session.log.close()
    if session.log.lost_records > record.lost_records:
        record.lost_records = session.log.lost_records
        record.exit_code = record.exit_code or 1
        _explain(session)
        _write_states(session)
    if session.rig_watch is not None and record.outcome is Outcome.PASSED:
        session.guard("keeping the rig's state", session.rig_watch.keep)
    session.journal.write("ended", outcome=str(record.outcome), exit_code=record.exit_code)
    if session.sidecar is not None:
        session.guard("telling the sidecar that the session is over", session.sidecar.session_over)
    _wait_for_sidecar(session)
    session.journal.write("bye")
    if session.sidecar is not None:
        session.guard("letting the sidecar go", session.sidecar.goodbye)
    session.journal.close()


def discard(session: SessionState) -> None:
    """Take a session back whose command line was a mistake (exit code 4) before any step was known; its folder goes.

    What the user put into the folder meanwhile stays, and the folder with it.
    """
    if session.nodes is not None:
        session.guard("leaving the other nodes", session.nodes.withdraw)
    session.journal.write("discarded")
    session.log.close()
    sidecar = session.sidecar
    if sidecar is not None:
        session.guard("telling the sidecar that the session is over", sidecar.session_over)
        deadline = time.monotonic() + _DISCARD_S
        while not sidecar.gave_up and not sidecar.wait_done(_LOOK_S) and time.monotonic() < deadline:
            continue
        session.guard("letting the sidecar go", sidecar.goodbye)
    session.journal.close()
    if session.faults is not None:
        session.faults.close()
        session.faults = None
    if [path.name for path in session.folder.iterdir()] != [METADATA]:
        return
    deadline = time.monotonic() + _DISCARD_S
    while session.folder.exists() and time.monotonic() < deadline:
        # On Windows the sidecar holds its files until it has gone.
        shutil.rmtree(session.folder, ignore_errors=True)
        time.sleep(0 if not session.folder.exists() else _LOOK_S)
    for folder in session.made_roots:
        with contextlib.suppress(OSError):  # somebody uses it meanwhile
            folder.rmdir()


def _stop_hardware(session: SessionState) -> None:
    if session.acquisition is not None:
        session.guard("stopping the acquisition", partial(session.acquisition.stop_all, "the session ends"))
    if session.devices is not None:
        devices = session.devices
        session.guard("reading the devices", lambda: session.device_states.update(devices.read_states()))
        session.guard("making the devices safe", lambda: session.keep("helper_failures", *devices.close_all()))
        for text in devices.unsafe:
            session.fail(Failure("exception", Outcome.ERROR, text, at=now_iso()))
    session.guard("looking for faults that never struck", partial(_tell_of_idle_faults, session))


def _tell_of_idle_faults(session: SessionState) -> None:
    idle = [] if session.record.acquisitions else list(session.options.acquisition_faults)
    if session.devices is not None:
        idle += session.devices.never_struck()
    for fault in idle:
        session.tell([f"injected fault {fault} never struck: no step made the call that it lies on"])


def _ask_notes(session: SessionState) -> None:
    if not session.settings.ask_notes or session.validating or not session.record.steps:
        return
    record, lines = session.record, list[str]()
    # Ctrl-C at the question means that there is nothing (more) to say; a timeout that has passed by now is on record.
    with contextlib.suppress(Exception, StepInterrupted, StepTimedOut), session.interrupts.window():
        session.operator.lines("Notes on this session (several lines; an empty line ends):", lines)
    if lines:
        session.keep("operator_notes", "\n".join(part for part in (record.operator_notes, *lines) if part))


def _explain(session: SessionState) -> None:
    """A session that is not good has at least one failure that says why."""
    record = session.record
    if record.failures:
        return
    if record.lost_records:
        text = f"{record.lost_records} log records were lost: {session.log.first_error}"
        session.fail(Failure("internal", Outcome.ERROR, text, at=now_iso()))
    elif not any(step.outcome for step in record.steps):
        if session.interrupts.count:
            session.keep("failures", Failure("interrupt", Outcome.INTERRUPTED, f"interrupted by {session.interrupts.cause}"))
        else:
            session.keep("failures", Failure("usage", Outcome.ERROR, "no step ran", at=now_iso()))


def _write_states(session: SessionState) -> None:
    if session.record.outcome is not Outcome.PASSED:
        session.guard("writing debug_state.json", lambda: session.save(DEBUG_STATE, _debug_state(session)))
    session.guard("writing end_state.json", session.save_end_state)


def _debug_state(session: SessionState) -> dict[str, Any]:
    launcher_state: dict[str, object] = {
        "session_folder": str(session.folder),
        "acquisition_begun": session.gate.acquisition_begun,
        "value_sources": dict(session.configuration.sources),
    }
    if session.device_states:
        launcher_state["devices"] = session.device_states
    return debug_state(
        session.record,
        launcher_state=launcher_state,
        log=session.log_path,
        parameters=session.parameters,
        secrets=session.secrets,
    )


def _write_footer(session: SessionState) -> None:
    record, log = session.record, session.log
    log.set_place(None, None)
    if record.operator_notes:
        log.write("INFO", _LOGGER, f"operator's notes: {record.operator_notes}")
    if record.simulated:
        log.write("INFO", _LOGGER, f"simulated: {', '.join(record.simulated)}")
    log.write("INFO", _LOGGER, f"session {record.session_uuid} stopped {record.stopped} after {record.duration_s or 0.0:.1f} s")
    lost = log.lost_records
    log.write("INFO", _LOGGER, f"outcome: {record.outcome}, exit code {record.exit_code}, lost log records {lost}")


def _wait_for_sidecar(session: SessionState) -> None:
    """Give mirror and report a bounded time; what they still owe goes on without this process."""
    settings, sidecar = session.settings, session.sidecar
    if sidecar is None:
        return
    started = time.monotonic()
    mirror_s = settings.mirror_wait_s if session.mirror["status"] != "off" else 0.0
    reported = session.record.failures and not session.missing_token and reports_failures(session)
    report_s = settings.report_wait_s if reported else 0.0
    owed = [name for name, wait_s in (("mirror", mirror_s), ("report", report_s)) if wait_s]
    session.doing = f"ending: {' and '.join(owed)} (at most {max(mirror_s, report_s):g} s)" if owed else "ending"
    while not sidecar.gave_up:
        passed_s = time.monotonic() - started
        mirrored = passed_s >= mirror_s or (sidecar.mirror or {}).get("status") in ("verified", "off")
        if mirrored and (passed_s >= report_s or sidecar.reports_left == 0):
            break
        if sidecar.wait_done(_LOOK_S):
            break
    if sidecar.mirror is not None:
        session.mirror = {key: sidecar.mirror.get(key) for key in ("status", "bytes_behind", "reason")}
    elif session.mirror["status"] == "pending" and not sidecar.gave_up:
        session.mirror["reason"] = f"no answer within {time.monotonic() - started:.1f} s"
    if report_s and sidecar.reports_left is None and not sidecar.gave_up and not session.reports:
        reason = f"no answer within {report_s:g} s; what is to be reported goes out in the background, or with the next session"
        session.reports.append({"status": "not known yet", "reason": reason})
