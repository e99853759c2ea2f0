"""The parameters of ``session_archiver``, and what can be wrong with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from ...config import CHOICE, PathText, Texts, Values, key, seconds
from ...log import is_secret_key
from ...records import METADATA, safe_name
from ...system import native_path
from ..failures import ModuleFailed
from ..parameters import FlagText, IntegerText, SecondsText, StepParameters, parameters_of


def _without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        is_secret = is_secret_key(name) or name in ("key", "secret", "username_password")
        if is_secret and isinstance(value, str) and not value.startswith("env:"):
            raise ValueError(f"{name}: a secret would be kept on disk; write env:NAME to read it from a variable")
    return options


Storage = Annotated[Values, AfterValidator(_without_secrets)]


class ArchiverParameters(StepParameters):
    """Parameters of ``session_archiver``; the launcher's keys mean what they meant there."""

    session_dir: PathText | None = key(None, "folder to archive; default: the session folder")
    network_dir: PathText | None = key(None, "first target: a folder, or a URL such as s3://bucket/path")
    backup_dir: PathText | None = key(None, "second target, like network_dir")
    network_storage_options: Storage = key({}, "options of a URL's file system; env:NAME reads a variable")
    backup_storage_options: Storage = key({}, "the same for backup_dir")
    copy_to_network: FlagText = key(True, "make the first copy")
    copy_to_backup: FlagText = key(True, "make the second copy")
    manifest_path: PathText | None = key(
        None,
        "what lies verified where; default: launcher_metadata/session_archiver_manifest.json; "
        "while files are copied, its lines are in ….jsonl beside it",
    )
    routing_manifest: PathText | None = key(None, "its files are archived first, in its order")
    checksum_algo: Annotated[Literal["xxh3", "sha256"], CHOICE] = key("xxh3", "checksum; xxh3 has 128 bits")
    include_patterns: Texts = key(("*",), "names or relative paths to archive, with * and ?")
    exclude_patterns: Texts = key((), "names or relative paths to leave out")
    dry_run: FlagText = key(False, "the log says what would be copied; nothing is touched")
    skip_completed: FlagText = key(True, "false reads both sides again of what an earlier run has verified")
    max_retries: IntegerText = key(2, "further attempts at a file that failed, after all others", "", 0)
    retry_delay_s: SecondsText = seconds(2.0, "wait before the second attempt; doubled before each further one")
    remove_originals: FlagText = key(False, "remove each original once both of its copies are verified")
    remove_empty_dirs: FlagText = key(False, "remove empty folders of the session folder at the end")
    when: Literal["step", "background"] = key("step", "copy in the step, or after the session has ended, when the rig is free")
    workers: IntegerText = key(4, "files that are copied at one time", "", 1, 64)
    timeout_s: SecondsText | None = seconds(None, "the step fails then; the copying goes on in the background", 0.001)

    def would(self) -> str:
        return f"archive {self.session_dir or 'the session folder'} to {' and '.join(self.targets().values())}"

    def targets(self) -> dict[str, str]:
        """Return the places that get a copy, by the names ``network`` and ``backup``."""
        wanted = {
            "network": self.network_dir if self.copy_to_network else None,
            "backup": self.backup_dir if self.copy_to_backup else None,
        }
        return {name: place for name, place in wanted.items() if place}

    def storage_options(self, name: str) -> dict[str, Any]:
        """Return the options of a target's file system."""
        return self.network_storage_options if name == "network" else self.backup_storage_options

    @property
    def folder(self) -> Path:
        """The folder to archive, once :func:`settled` has seen to it."""
        return Path(self.session_dir or "")

    @property
    def manifest(self) -> Path:
        """Where the manifest is."""
        return Path(self.manifest_path or "")


def is_url(place: str) -> bool:
    """Tell whether a target is a URL of some file system, not a folder."""
    return "://" in place


def read_parameters(given: Mapping[str, Any], session_folder: Path, step: str = "session_archiver") -> ArchiverParameters:
    """Return what :func:`settled` makes of parameters as they are given.

    Raises:
        ModuleFailed: something is wrong or missing; all of it is named.
    """
    return settled(parameters_of(ArchiverParameters, {}, given), session_folder, step)


def settled(read: ArchiverParameters, session_folder: Path, step: str) -> ArchiverParameters:
    """Return the parameters with absolute paths; each step has a manifest of its own.

    Raises:
        ModuleFailed: something is missing, or a target cannot be one; all of it is named.
    """
    problems = [
        f"{key} is missing (or set {switch} to false)"
        for key, switch, place in (
            ("network_dir", "copy_to_network", read.network_dir),
            ("backup_dir", "copy_to_backup", read.backup_dir),
        )
        if getattr(read, switch) and not place
    ]
    if not (read.copy_to_network or read.copy_to_backup):
        problems.append("copy_to_network and copy_to_backup are both false: nothing would be archived")
    if read.remove_originals and len(read.targets()) < 2:
        problems.append("remove_originals needs both copies: an original is removed once both are verified")
    folder = _absolute(read.session_dir, session_folder) if read.session_dir else session_folder.absolute()
    places = {name: place if is_url(place) else str(_absolute(place, folder)) for name, place in read.targets().items()}
    problems += _problems_of_places(read.targets(), places, folder)
    if problems:
        raise ModuleFailed("; ".join(problems))
    return read.model_copy(
        update={
            "session_dir": str(folder),
            **{f"{name}_dir": place for name, place in places.items()},
            "manifest_path": str(
                _absolute(read.manifest_path or f"{METADATA}/{safe_name(step, 'archive')}_manifest.json", folder)
            ),
            "routing_manifest": str(_absolute(read.routing_manifest, folder)) if read.routing_manifest else None,
        }
    )


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.abspath(folder / native_path(text).expanduser()))  # noqa: PTH100 - resolve() follows links


def _problems_of_places(written: Mapping[str, str], places: Mapping[str, str], folder: Path) -> list[str]:
    problems = [
        f"{name}_dir: {text} is a Windows path, and this is no Windows"
        for name, text in written.items()
        if sys.platform != "win32" and PureWindowsPath(text).drive and not is_url(text) and not text.startswith("//")
    ]
    for name, place in places.items():
        if not is_url(place) and _lies_in(place, folder):
            problems.append(f"{name}_dir: {place} lies in the folder that is archived, {folder}")
        elif not is_url(place) and _lies_in(folder, Path(place)):
            problems.append(f"{name}_dir: {place} holds the folder that is archived, {folder}")
    if len(set(map(os.path.normcase, places.values()))) < len(places):
        problems.append("network_dir and backup_dir are the same place")
    return problems


def _lies_in(place: str | Path, folder: Path) -> bool:
    parts, above = (PurePath(os.path.normcase(os.path.realpath(one))).parts for one in (place, folder))
    return parts[: len(above)] == above
