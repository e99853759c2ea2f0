"""``--continue-session``: goes on where an earlier session of the same rig and subject stopped, in a new, numbered session.

The earlier session's own files stay as they are; its ``end_state.json`` alone gets one more key, ``continued_by``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import look_up
from ..log import MASK
from ..records import END_STATE, METADATA, ConfigurationError, Mistake
from ..system import read_json, update_json

OPTION = "--continue-session"
LAST = "last"
#: What belongs to one session alone.
_OF_ONE_SESSION = ("session_uuid", "session_sync_session_name")
_OF_THE_ANIMAL = ("subject_id", "user_id")
_THE_OPERATOR = "the operator"


@dataclass(frozen=True)
class Earlier:
    """The session that is continued, and what the new one takes from it.

    Attributes:
        folder: its session folder.
        subject_id: whose session it was.
        first: name of the first session of the chain.
        number: which session of the chain the new one is; the first continuation is 2.
        values: dotted key, value and source: what was answered, or given on the command line, and who the subject is.
        parameter_file: the parameter file that it had, None without.
        masked: keys of values that its files do not tell, since they are secret.
        of_a_dry_run: it was a dry run itself; a dry run adds nothing to the files of a real session.
    """

    folder: Path
    subject_id: str | None
    first: str
    number: int
    values: tuple[tuple[str, Any, str], ...]
    parameter_file: Path | None
    masked: tuple[str, ...]
    of_a_dry_run: bool

    def name_in(self, root: Path) -> str:
        """Return the new session's name: the first one's with a number that no folder in ``root`` has yet."""
        number = self.number
        while (root / f"{self.first}_{number}").exists():
            number += 1
        return f"{self.first}_{number}"

    def as_json(self) -> dict[str, Any]:
        return {
            "session_uuid": self.folder.name,
            "session_folder": str(self.folder),
            "first_session": self.first,
            "number": self.number,
        }


def find_earlier(given: str, rig_id: str, output_root: Path, cwd: Path) -> Earlier:
    """Return the session that ``--continue-session`` means: a session folder, or ``last`` for this rig's newest one.

    Raises:
        ConfigurationError: there is none, or it is another rig's.
    """
    folder = _last(rig_id, output_root) if given == LAST else (cwd / Path(given).expanduser()).absolute()
    if folder is None:
        raise _wrong(f"no session of rig {rig_id} is in {output_root}", "give the session folder, or start a new session")
    parameters = read_inputs(folder, OPTION)
    arguments, state = (read_json(folder / METADATA / name) or {} for name in ("command_line_arguments.json", END_STATE))
    if (theirs := _rig_of(folder)) not in ("", rig_id):
        raise _wrong(f"{folder.name} was run on rig {theirs}, not on {rig_id}", "start a new session, or give that rig's file")
    before = state.get("continues") or {}
    values, masked = list[tuple[str, Any, str]](), list[str]()
    for key, value in _carried(arguments.get("value_sources") or {}, parameters):
        if MASK in str(value):
            masked.append(key)
        else:
            values.append((key, value, f"session {folder.name} ({OPTION})"))
    file = arguments.get("original_param_file")
    return Earlier(
        folder=folder,
        subject_id=parameters.get("subject_id"),
        first=str(before.get("first_session") or folder.name),
        number=int(before.get("number") or 1) + 1,
        values=tuple(values),
        parameter_file=Path(file) if file and Path(file).is_file() else None,
        masked=tuple(masked),
        of_a_dry_run=bool(state.get("dry_run")),
    )


def read_inputs(folder: Path, option: str) -> dict[str, Any]:
    """Return the parameters that a session was given; raises ``ConfigurationError`` where there was none."""
    found = read_json(folder / METADATA / "input_parameters.json")
    if found is None:
        problem = f"{folder} is no session folder of this plugin"
        raise ConfigurationError([Mistake(option, problem, "give the folder that holds launcher_metadata")])
    return found


def check_subject(earlier: Earlier, subject_id: str | None) -> list[Mistake]:
    if earlier.subject_id is None or subject_id in (None, earlier.subject_id):
        return []
    problem = f"{earlier.folder.name} was a session of subject {earlier.subject_id}, not of {subject_id}"
    return [Mistake(OPTION, problem, "leave the subject out, or start a new session")]


def not_taken_over(earlier: Earlier, parameters: Mapping[str, Any]) -> list[str]:
    """Return what the new session lacks since the earlier one's files do not hold it."""
    lacking = []
    for key in earlier.masked:
        try:
            look_up(parameters, key)
        except KeyError:
            words = f"is not taken over from {earlier.folder.name}: its files do not hold secrets -> give it again"
            lacking.append(f"{key} {words}")
    return lacking


def link_back(earlier: Earlier, session_folder: Path) -> None:
    """Name the new session in the earlier one's ``end_state.json``.

    Raises:
        OSError: the file cannot be written, or is not there.
    """
    link = {"session_uuid": session_folder.name, "session_folder": str(session_folder)}

    def add(state: dict[str, Any]) -> None:
        state["continued_by"] = [*(state.get("continued_by") or []), link]

    if not update_json(earlier.folder / METADATA / END_STATE, add):
        raise FileNotFoundError(f"{earlier.folder / METADATA / END_STATE} is not there, or is no JSON object")


def _wrong(problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([Mistake(OPTION, problem, remedy)])


def _last(rig_id: str, root: Path) -> Path | None:
    """Return this rig's newest session folder; folders are looked at from the newest on, and only until one fits."""

    def changed(folder: Path) -> float:
        try:
            return (folder / METADATA).stat().st_mtime
        except OSError:
            return 0.0

    try:
        folders = sorted(root.iterdir(), key=changed, reverse=True)
    except OSError:
        return None
    return next((folder for folder in folders if changed(folder) and _rig_of(folder) == rig_id), None)


def _rig_of(folder: Path) -> str:
    """Return the rig of a session; "" when its files do not tell."""
    state = read_json(folder / METADATA / END_STATE) or read_json(folder / METADATA / "input_parameters.json") or {}
    return str(state.get("rig_id") or "")


def _carried(sources: Mapping[str, str], parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what was answered or given on the command line; files are read anew, since they may have been mended."""
    for key in dict.fromkeys((*_OF_THE_ANIMAL, *sources)):
        source = sources.get(key, "")
        if key.split(".")[0] in _OF_ONE_SESSION or not (
            key in _OF_THE_ANIMAL
            or source in (_THE_OPERATOR, MASK)  # where a secret came from is not on record either
            or source.startswith("--")
            or source.endswith(f"({OPTION})")
        ):
            continue
        try:
            yield key, look_up(parameters, key)
        except KeyError:
            continue
