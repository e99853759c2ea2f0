"""The parameters of ``session_archiver``, and what can be wrong with them."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...log import is_secret_key
from ...records import METADATA, safe_name
from ...system import native_path
from ..failures import ModuleFailed


class ArchiverParameters(BaseModel):
    """What ``module_parameters`` of a ``session_archiver`` entry may hold; the launcher's keys mean what they meant there."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    session_dir: str | None = Field(None, description="folder to archive; default: the session folder")
    network_dir: str | None = Field(None, description="first target: a folder, or a URL such as s3://bucket/path")
    backup_dir: str | None = Field(None, description="second target, like network_dir")
    network_storage_options: dict[str, Any] = Field({}, description="options of a URL's file system; env:NAME reads a variable")
    backup_storage_options: dict[str, Any] = Field({}, description="the same for backup_dir")
    copy_to_network: bool = Field(True, description="make the first copy")
    copy_to_backup: bool = Field(True, description="make the second copy")
    manifest_path: str | None = Field(None, description=f"default {METADATA}/session_archiver_manifest.json")
    routing_manifest: str | None = Field(None, description="its files are archived first")
    checksum_algo: Literal["xxh3", "sha256"] = Field("xxh3", description="xxh3 (128 bits) or sha256")
    include_patterns: tuple[str, ...] = Field(("*",), description="names or relative paths to archive, with * and ?")
    exclude_patterns: tuple[str, ...] = Field((), description="names or relative paths to leave out")
    dry_run: bool = Field(False, description="say what would be copied")
    skip_completed: bool = Field(True, description="do not read again what an earlier run has verified and nobody changed")
    max_retries: int = Field(2, ge=0, description="further attempts at a file that failed, after all others")
    retry_delay_s: float = Field(2.0, ge=0, description="wait before the second attempt; doubled before each further one")
    remove_originals: bool = Field(False, description="remove each original once both of its copies are verified")
    remove_empty_dirs: bool = Field(False, description="remove empty folders of the session folder at the end")
    when: Literal["step", "background"] = Field("step", description="copy in the step, or after the session has ended")
    workers: int = Field(4, ge=1, le=64, description="files that are copied at one time")
    timeout_s: float | None = Field(None, gt=0, description="the step waits so long; the rest is copied after the session")

    @field_validator("include_patterns", "exclude_patterns", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        """A text is a list of one, and no patterns at all are the default, as the launcher has it."""
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else value

    @field_validator("include_patterns", mode="after")
    @classmethod
    def _all(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pattern for pattern in value if pattern) or ("*",)

    @field_validator("checksum_algo", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

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
        """The folder to archive, once :func:`read_parameters` has seen to it."""
        return Path(self.session_dir or "")

    @property
    def manifest(self) -> Path:
        """Where the manifest is."""
        return Path(self.manifest_path or "")


def is_url(place: str) -> bool:
    """Tell whether a target is a URL of some file system, not a folder."""
    return "://" in place


def problems_of(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with an entry's own parameters, as pairs of key and problem; texts with placeholders pass."""
    found: list[tuple[str, str]] = []
    known = list(ArchiverParameters.model_fields)
    for name in given:
        if name not in known and (near := difflib.get_close_matches(name, known, n=1, cutoff=0.85)):
            found.append((name, f"unknown key, did you mean {near[0]}?"))
    settled = {name: value for name, value in given.items() if not (isinstance(value, str) and ("{" in value or "$" in value))}
    try:
        ArchiverParameters.model_validate({name: value for name, value in settled.items() if value is not None})
    except ValidationError as error:
        found += [(str(one["loc"][0]), _words(one)) for one in error.errors()]
    for options in ("network_storage_options", "backup_storage_options"):
        value = given.get(options)
        for name, secret in value.items() if isinstance(value, Mapping) else ():
            plain = isinstance(secret, str) and not secret.startswith("env:")
            if plain and (is_secret_key(str(name)) or str(name) in ("key", "secret", "username_password")):
                found.append((f"{options}.{name}", "a secret would be kept on disk; write env:NAME to read it from a variable"))
    return found


def read_parameters(given: Mapping[str, Any], session_folder: Path, step: str = "session_archiver") -> ArchiverParameters:
    """Return the parameters with absolute paths; each step has a manifest of its own.

    Raises:
        ModuleFailed: something is wrong or missing; all of it is named.
    """
    names = ArchiverParameters.model_fields
    found = problems_of({name: value for name, value in given.items() if name in names})
    if found:
        raise ModuleFailed("; ".join(f"{key}: {problem}" for key, problem in found))
    read = ArchiverParameters.model_validate({k: v for k, v in given.items() if k in names and v is not None})
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


def _words(error: Any) -> str:
    expected = error.get("ctx", {}).get("expected")
    return f"must be {expected}, not {error['input']!r}" if expected else f"{error['msg']}, not {error['input']!r}"
