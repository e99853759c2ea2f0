"""The files of a session folder that are to be archived, in the order in which they are."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ...records import METADATA
from . import JOBS
from .folders import Source, os_path
from .parameters import ArchiverParameters

#: Names of copies that are under way, in the targets' folders; such a file is nobody's data.
PARTIAL = re.compile(r"\.openscope-[0-9a-f]{16}\.partial")
#: Manifests of other archives of the same session.
_OWN = re.compile(rf"{METADATA}/session_archiver[^/]*_manifest\.jsonl?")


@dataclass
class Found:
    """What a folder holds: files, what cannot be archived and why, and what needs not be (sockets, pipes)."""

    files: list[Source] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def find_files(parameters: ArchiverParameters) -> Found:
    """Look through the folder; files of the routing manifest come first, as it lists them."""
    found = Found()
    root = os_path(str(parameters.folder))
    own = {_relative(parameters.manifest, parameters.folder), _relative(Path(f"{parameters.manifest}l"), parameters.folder)}
    files: dict[str, Source] = {}
    for name, entry in _walk(root, "", found):
        if name in own or _OWN.fullmatch(name) or name.startswith(f"{METADATA}/{JOBS}/") or PARTIAL.fullmatch(entry.name):
            continue
        if not _wanted(name, parameters):
            continue
        try:
            facts = entry.stat()
        except OSError as error:
            link = entry.is_symlink()
            found.problems[name] = f"is a link that leads nowhere ({error.strerror})" if link else f"cannot be read: {error}"
            continue
        if stat.S_ISREG(facts.st_mode):
            files[name] = Source(name, facts.st_size, facts.st_mtime_ns)
        elif stat.S_ISDIR(facts.st_mode):
            found.problems[name] = "is a link to a folder, which is not followed"
        else:
            found.passed_over[name] = "is no file but a socket, pipe or device"
    for name in _routed(parameters, found):
        if name in files:
            found.files.append(files.pop(name))
        elif _wanted(name, parameters):
            found.remarks.append(f"the routing manifest names {name}, which is not there")
    found.files += [files[name] for name in sorted(files)]
    return found


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        return ""


def _walk(folder: str, prefix: str, found: Found) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything that is no folder; without recursion, since a path may be deep."""
    waiting = [(folder, prefix)]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            found.problems[prefix.rstrip("/") or "."] = f"the folder cannot be read: {error.strerror or error}"
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield prefix + entry.name, entry


def _wanted(name: str, parameters: ArchiverParameters) -> bool:
    base = name.rpartition("/")[2]

    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(name, pattern) or fnmatch(base, pattern) for pattern in patterns)

    # No patterns at all are the default, as the launcher has it.
    return fits(tuple(filter(None, parameters.include_patterns)) or ("*",)) and not fits(parameters.exclude_patterns)


def _routed(parameters: ArchiverParameters, found: Found) -> list[str]:
    if not parameters.routing_manifest or not Path(parameters.routing_manifest).exists():
        return []
    try:
        entries = json.loads(Path(parameters.routing_manifest).read_text(encoding="utf-8-sig"))["entries"]
        names = [str(name).replace("\\", "/").removeprefix("./") for entry in entries for name in entry.get("files") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found.remarks.append(f"{parameters.routing_manifest} is no routing manifest ({error}); its order does not count")
        return []
    return list(dict.fromkeys(names))
