"""Before a session begins: is the rig ready, is it free, and what did earlier sessions on it leave?"""

from __future__ import annotations

import contextlib
import socket
import traceback
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from ..system import FileLock, make_private_folder, read_holder

if TYPE_CHECKING:
    from .session import ExperimentSession

_LOGGER = "pytest_openscope.session"
#: A session that has just ended holds its sidecar's lock for some moments.
_SIDECAR_LOCK_S = 3.0


def check_readiness(session: ExperimentSession) -> None:
    """Hold the rig's last validation against its ``readiness`` block; an override is noted with who gave it.

    Raises:
        pytest.UsageError: the rig is not ready, and the rig file wants the session refused for that.
    """
    configuration, reason = session.configuration, session.options.override_readiness
    if not configuration.rig.readiness or session.dry_run or session.validating:
        return
    from ..checks import evaluate, expanded_block, things_of

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
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def take_rig(session: ExperimentSession) -> None:
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
        if not lock.acquire(wait_s):
            raise _rig_is_held(read_holder(state / "rig.holder.json"), rig.rig_id)
        if not beside.acquire(max(_SIDECAR_LOCK_S, wait_s)):
            lock.release()
            raise _rig_is_held(read_holder(state / "rig.holder.json"), rig.rig_id)
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


def recover_earlier(session: ExperimentSession) -> None:
    """Finish what earlier sessions of this rig left unfinished (a power cut, a killed sidecar)."""
    state = session.configuration.rig.state_directory
    if not (state / "unfinished").is_dir():
        return
    try:
        from ..sidecar import recover

        session.notices += recover(state, secrets=session.secrets)
    except Exception as error:
        # Neither record nor log are there yet; the log keeps what comes until it is open.
        session.notices.append(f"earlier sessions could not be looked after: {type(error).__name__}: {error}")
        session.log.write("ERROR", _LOGGER, f"recovering earlier sessions failed\n{traceback.format_exc().rstrip()}")


def tell_of_crashes(session: ExperimentSession) -> None:
    """Tell, once, of earlier sessions whose end nobody at the rig may have seen: their sidecar wrote it."""
    from ..sidecar import crashed

    for path, text in crashed(session.configuration.rig.state_directory):
        session.notices.append(text)
        path.unlink(missing_ok=True)
