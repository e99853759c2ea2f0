"""What is different on this rig since its last good session: listed at the start, kept in the session folder."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .readiness import changes_since_last_good, describe_rig, keep_last_good
from .snapshot import package_versions

if TYPE_CHECKING:
    from .session import ExperimentSession


class RigWatch:
    """Compares in a thread of its own, since reading every package's version takes tens of milliseconds."""

    def __init__(self, session: ExperimentSession) -> None:
        self._session = session
        self._current: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._run, name="openscope-rig-watch", daemon=True)

    def start(self) -> None:
        """Begin to compare."""
        self._thread.start()

    def _run(self) -> None:
        self._session._guard("comparing the rig with its last good session", self._compare)

    def _compare(self) -> None:
        session = self._session
        rig = session.configuration.rig
        self._current = describe_rig(packages=package_versions(), devices=rig.devices, configuration=rig.raw)
        changes = changes_since_last_good(rig.state_directory, self._current)
        for line in changes.lines:
            session.log.write("WARNING", "pytest_openscope.rig", f"changed since the last good session: {line}")
        if changes.lines:
            session.notices.append(f"{len(changes.lines)} things changed on this rig since {changes.since} (see the log)")
        if changes.as_json:
            session._save("changes_since_last_good.json", changes.as_json)

    def keep(self) -> None:
        """Remember this rig as good."""
        self._thread.join(5.0)
        session = self._session
        current = {**self._current, **describe_rig(device_states=session.device_states)}
        keep_last_good(session.configuration.rig.state_directory, current, session.record.session_uuid, session.started)
