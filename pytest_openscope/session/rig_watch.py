"""What is different on this rig since its last good session: listed at the start, kept in the session folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import compare, describe_rig, installed_versions, keep_last_good, last_good

if TYPE_CHECKING:
    from .session import ExperimentSession

CHANGES = "changes_since_last_good.json"
_LISTED = 10
_LOGGER = "pytest_openscope.rig"


class RigWatch:
    """Compares packages, drivers and rig file at the start, and each device's state when it has just been opened."""

    def __init__(self, session: ExperimentSession) -> None:
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
        self._session._guard("comparing device states with the last good session", lambda: self._read(names))

    def _read(self, names: Sequence[str]) -> None:
        states = self._session.devices.read_states(names=names)
        self._states.update({name: state for name, state in states.items() if not _unknown(state)})
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
            since = f"changed since the last good session ({changes.since}; all in {CHANGES}):"
            session.notices += [since, *(f"  {line}" for line in listed)]
        if changes.as_json:
            session._save(CHANGES, changes.as_json)

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


def _unknown(state: Any) -> bool:
    return isinstance(state, dict) and set(state) == {"error"}


def _commits(metadata: Path) -> dict[str, str]:
    """Return the commit of each repository that ``git_revisions.json`` names, the experiment's first of all."""
    try:
        found = json.loads((metadata / "git_revisions.json").read_text(encoding="utf-8"))
        return {str(one["name"]): str(one["commit"]) for one in found if one.get("commit")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
