"""The rig's side of a session: its lock, its readiness, earlier sessions that died, what changed on it, its checks as steps."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import socket
import traceback
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..checks import (
    PLUGIN_NAME,
    CheckRecorder,
    RigChecks,
    compare,
    describe_rig,
    evaluate,
    expanded_block,
    keep_last_good,
    last_good,
    things_of,
)
from ..records import installed_versions
from ..sidecar import crashed, recover
from ..system import FileLock, make_private_folder, read_json, remove_file
from .collecting import place_of
from .interrupts import StepExited, StepInterrupted
from .repository import check_acquisition

if TYPE_CHECKING:
    from ..config import GithubIssueSettings
    from .state import SessionState

_LOGGER = "pytest_openscope.rig"
#: A session that has just ended holds its sidecar's lock for some moments.
_SIDECAR_LOCK_S = 3.0


def check_readiness(session: SessionState) -> None:
    """Hold the rig's last validation against its ``readiness`` block; an override is noted with who gave it.

    Raises:
        pytest.UsageError: the rig is not ready, and the rig file wants the session refused for that.
    """
    configuration, reason = session.configuration, session.options.override_readiness
    if not configuration.rig.readiness or session.dry_run or session.validating:
        return
    rig = configuration.rig
    now = datetime.now().astimezone()
    block, mistakes = expanded_block(configuration)
    if mistakes:
        raise pytest.UsageError("\n".join(mistakes))
    readiness = evaluate(
        block,
        rig.state_directory,
        now,
        rig_id=rig.rig_id,
        rig_file=str(configuration.rig_file),
        declared=things_of(configuration),
    )
    if readiness.ok:
        if reason is not None:
            session.notices.append("--override-readiness was not needed: the rig is ready")
    elif reason is not None:
        user, system = session.settings.user_id or "unknown user", _system_user()
        session.notices.append(f"readiness overridden by {user} (system user {system}): {reason!r} ({readiness.message})")
        session.readiness_override = {
            "reason": reason,
            "user_id": session.settings.user_id,
            "system_user": system,
            "host": socket.gethostname(),
            "at": now.isoformat(timespec="seconds"),
            "problems": list(readiness.problems),
        }
    elif readiness.refuse:
        raise pytest.UsageError(readiness.message)
    else:
        session.notices.append(readiness.message)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def take_rig(session: SessionState) -> None:
    """Take the rig's lock; the lock of its sidecar must be free too, but is left to the session's own.

    Raises:
        pytest.UsageError: another session has the rig, or the lock cannot be had.
    """
    rig, wait_s = session.configuration.rig, session.options.wait_for_rig_s
    state = rig.state_directory
    with contextlib.suppress(OSError):  # taking the lock tells of it
        make_private_folder(state)
    lock, beside = FileLock(state / "rig.lock"), FileLock(state / "rig.sidecar.lock")
    try:
        if not (lock.acquire(wait_s) and beside.acquire(max(_SIDECAR_LOCK_S, wait_s))):
            lock.release()
            raise _rig_is_held(read_json(state / "rig.holder.json") or {}, rig.rig_id)
    except OSError as error:
        lock.release()
        raise pytest.UsageError(
            f"the rig's lock {lock.path} cannot be taken: {error} -> make the folder writable, or set state_directory"
        ) from None
    beside.release()
    session.rig_lock = lock


def _rig_is_held(holder: dict[str, Any], rig_id: str) -> pytest.UsageError:
    who = "another session"
    if holder:
        place = f"pid {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
        who = f"session {holder.get('session_uuid')} ({place})"
    return pytest.UsageError(f"rig {rig_id} is in use by {who} -> wait for its end, or give --wait-for-rig SECONDS")


def recover_earlier(session: SessionState) -> None:
    """Finish what earlier sessions of this rig left unfinished (a power cut, a killed sidecar)."""
    state = session.configuration.rig.state_directory
    try:
        session.notices += recover(state, secrets=session.secrets, alert_urls=alert_urls(session))
    except Exception as error:
        # Neither record nor log are there yet; the log keeps what comes until it is open.
        session.notices.append(f"earlier sessions could not be looked after: {type(error).__name__}: {error}")
        session.log.write("ERROR", _LOGGER, f"recovering earlier sessions failed\n{traceback.format_exc().rstrip()}")


def alert_urls(session: SessionState) -> tuple[str, ...]:
    alerts = session.settings.alerts
    return alerts.to if alerts is not None else ()


def tell_of_crashes(session: SessionState) -> None:
    """Tell, once, of earlier sessions whose end nobody at the rig may have seen: their sidecar wrote it."""
    for path, text in crashed(session.configuration.rig.state_directory):
        session.notices.append(text)
        remove_file(path)


CHANGES = "changes_since_last_good.json"
_LISTED = 10


class RigWatch:
    """Compares packages, drivers and rig file at the start, and each device's state when it has just been opened."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._last: dict[str, Any] = {}
        self._current: dict[str, dict[str, Any]] = {}
        self._states: dict[str, Any] = {}
        self._told: set[str] = set()

    def start(self) -> None:
        """Compare what can be known before any device is touched."""
        rig = self._session.configuration.rig
        self._last = last_good(rig.state_directory, rig.rig_id)
        self._current = describe_rig(
            packages=installed_versions(),
            devices=rig.devices,
            configuration=rig.raw,
            python=platform.python_version(),
            repositories=_commits(self._session.metadata),
            rig_dir=rig.path.parent,
            secrets=self._session.secrets,
        )
        self._tell()

    def devices_opened(self, names: Sequence[str]) -> None:
        """Compare the states of devices with what they were when they were opened in the last good session."""
        self._session.guard("comparing device states with the last good session", lambda: self._read(names))

    def _read(self, names: Sequence[str]) -> None:
        states = self._session.devices.read_states(names=names)
        unknown = [name for name, state in states.items() if isinstance(state, dict) and set(state) == {"error"}]
        self._states.update({name: state for name, state in states.items() if name not in unknown})
        self._current.update(describe_rig(device_states=self._states, secrets=self._session.secrets))
        self._tell()

    def _tell(self) -> None:
        session = self._session
        changes = compare(self._last, self._current)
        fresh = [line for line in changes.lines if line not in self._told]
        self._told.update(fresh)
        if fresh:
            hidden = len(fresh) - _LISTED
            listed = [*fresh[:_LISTED], f"{hidden} more, see {CHANGES}"] if hidden > 0 else fresh
            session.log.write("WARNING", _LOGGER, f"changed since the last good session: {'; '.join(listed)}")
            since = f"changed since the last good session ({changes.as_json['since']}; all in {CHANGES}):"
            session.notices += [since, *(f"  {line}" for line in listed)]
        if changes.as_json:
            session.save(CHANGES, changes.as_json)

    def keep(self) -> None:
        """Remember this rig as good; of devices that this session did not need, what is known stays.

        A start that failed leaves too little to remember: the last good session stays what it was.
        """
        if "configuration" not in self._current:
            return
        session, rig = self._session, self._session.configuration.rig
        before = self._last.get("sections", {}).get("device_states", {})
        opened = {key.partition(".")[0] for key in self._current.get("device_states", {})}
        known = {key: value for key, value in before.items() if key.partition(".")[0] in {*rig.devices} - opened}
        states = {**known, **self._current.get("device_states", {})}
        sections = {**self._current, "device_states": states}
        keep_last_good(rig.state_directory, sections, session.record.session_uuid, session.started, rig.rig_id)


def _commits(metadata: Path) -> dict[str, str]:
    try:
        found = json.loads((metadata / "git_revisions.json").read_text(encoding="utf-8"))
        return {str(one["name"]): str(one["commit"]) for one in found if one.get("commit")}
    except (OSError, ValueError):
        return {}


def _access(settings: GithubIssueSettings, limit_s: float) -> list[dict[str, str]]:
    from ..issues import check_access

    return check_access(settings, os.environ.get(settings.token_env, ""), limit_s=limit_s)


def register_recorder(session: SessionState) -> Any:
    configuration = session.configuration

    def not_run(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, (StepInterrupted, StepExited)):
            return True
        reason = session.gate.reason_to_skip(place_of(item)[0])
        return bool(reason) and isinstance(error, pytest.skip.Exception) and str(error) == reason

    rig_checks = RigChecks(
        configuration,
        session.record.session_uuid,
        session.rig,
        notices=session.configuration_notices,
        within=partial(session.watchdog.limited, "rig check"),
        acquisition=partial(check_acquisition, configuration),
        access=_access,
    )
    recorder = CheckRecorder(rig_checks, not_run=not_run, complete=session.validating and session.options.all_checks)
    session.config.pluginmanager.register(recorder, PLUGIN_NAME)
    return recorder
