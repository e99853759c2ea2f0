"""What a session's folder says of the session, for the files that describe it to downstream programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..records import END_STATE, METADATA
from ..system import read_json
from .failures import ModuleFailed
from .mouse_weight import FILE_NAME as WEIGHTS


@dataclass(frozen=True)
class SessionFacts:
    """A session as its folder has it; during post-acquisition ``end_state.json`` is provisional.

    Attributes:
        end_state, parameters: ``end_state.json`` and ``processed_parameters.json``; secrets are masked in them.
        revisions: ``git_revisions.json``.
    """

    folder: Path
    end_state: Mapping[str, Any]
    parameters: Mapping[str, Any]
    revisions: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> SessionFacts:
        """Read the folder.

        Raises:
            ModuleFailed: it is no session's folder.
        """
        end_state = read_json(folder / METADATA / END_STATE)
        if end_state is None or not end_state.get("start_time"):
            raise ModuleFailed(f"{folder} is no session folder: it has no {METADATA}/{END_STATE} with a start_time")
        try:
            revisions = json.loads((folder / METADATA / "git_revisions.json").read_text("utf-8"))
        except (OSError, ValueError):
            revisions = []
        parameters = read_json(folder / METADATA / "processed_parameters.json") or {}
        known = [one for one in revisions if isinstance(one, dict)] if isinstance(revisions, list) else []
        return cls(folder, end_state, parameters, known)

    def value(self, key: str) -> Any:
        """Return a value of the end state, else of the parameters; None for none."""
        found = self.end_state.get(key)
        return self.parameters.get(key) if found in (None, "") else found

    @property
    def subject_id(self) -> str:
        """The subject.

        Raises:
            ModuleFailed: nothing says which one.
        """
        subject = self.value("subject_id")
        if subject in (None, ""):
            raise ModuleFailed("nothing says which subject the session had -> give subject_id")
        return str(subject)

    @property
    def rig_id(self) -> str:
        """The rig, or "" where nothing says which."""
        rig = self.value("rig_id") or (self.end_state.get("rig_config") or {}).get("rig_id")
        return str(rig or "")

    @property
    def started(self) -> datetime:
        return _time(self.end_state["start_time"])

    @property
    def ended(self) -> datetime:
        """When it ended; now, while it runs."""
        stopped = self.end_state.get("stop_time")
        return max(_time(stopped) if stopped else datetime.now().astimezone(), self.started)

    @property
    def acquired(self) -> tuple[datetime, datetime]:
        """When the first acquisition step began and the last one ended; the whole session where there was none."""
        steps = [
            step
            for step in self.end_state.get("steps") or ()
            if step.get("phase") == "acquisition" and step.get("started") and not step.get("skipped")
        ]
        if not steps:
            return self.started, self.ended
        begins = [_time(step["started"]) for step in steps]
        ends = [
            begin + timedelta(seconds=float(step.get("duration_s") or 0)) for begin, step in zip(begins, steps, strict=True)
        ]
        return max(min(begins), self.started), min(max(ends), self.ended)

    @property
    def notes(self) -> str:
        notes = (self.end_state.get("experiment_data") or {}).get("experiment_notes")
        return str(notes or "")

    @property
    def device_names(self) -> list[str]:
        return list(self.end_state.get("devices") or {})

    @property
    def repository(self) -> dict[str, Any]:
        """The experiment's repository as ``git_revisions.json`` has it; empty for none."""
        return next((one for one in self.revisions if one.get("experiment")), {})

    def weights_g(self) -> dict[str, float]:
        """Return the animal's weights by stage, ``pre`` and ``post``; of several the last one counts."""
        try:
            with open(self.folder / WEIGHTS, encoding="utf-8", newline="") as stream:
                return {row["stage"]: float(row["weight_g"]) for row in csv.DictReader(stream)}
        except FileNotFoundError:
            return {}
        except (KeyError, ValueError, TypeError) as error:
            raise ModuleFailed(f"{self.folder / WEIGHTS} has no weights: {error}") from error


def _time(text: Any) -> datetime:
    """Read a time; one without an offset is local."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone()
    except ValueError as error:
        raise ModuleFailed(f"{END_STATE} has no time in {text!r}") from error
