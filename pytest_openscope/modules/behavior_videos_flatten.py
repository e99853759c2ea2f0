"""Ready-made step: bring the videos of nested ``behavior-videos`` folders together in one."""

from __future__ import annotations

import filecmp
import os
import shutil
from functools import partial
from pathlib import Path

from ..config import PathText, Text, Texts, key
from ..records import METADATA
from ..system import native_path, patiently, write_json
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import Deadline, FlagText, StepParameters
from .routing import as_written, read_entries

_TYPE = "behavior_videos_flattened"


class BehaviorVideosFlatten(StepParameters):
    """Parameters of ``behavior_videos_flatten``."""

    output_session_folder: PathText | None = key(None, "folder that is searched; default: the session folder")
    behavior_videos_root: Text = key("behavior-videos", "name of the folders whose videos are brought together")
    behavior_videos_destination: PathText | None = key(
        None, "folder that gets them; default: the one of that name in the session folder"
    )
    behavior_videos_extensions: Texts = key(
        (".avi", ".mp4", ".mpeg", ".mpg", ".mov", ".mkv", ".mjpg", ".mjpeg", ".h264"), "endings of videos, in any case"
    )
    behavior_videos_copy_only: FlagText = key(False, "leave the originals where they are")
    behavior_videos_prune_empty: FlagText = key(True, "remove folders that are empty then")
    manifest_path: PathText | None = key(None, f"routing manifest; default: {METADATA}/routing_manifest.json")

    def would(self) -> str:
        verb = "copy" if self.behavior_videos_copy_only else "move"
        where = self.behavior_videos_destination or self.behavior_videos_root
        return f"{verb} the videos of all folders {self.behavior_videos_root} to {where}"


def behavior_videos_flatten(context: ModuleContext, parameters: BehaviorVideosFlatten) -> list[Path]:
    """Move each video below a nested folder of that name into one, at the same path below it.

    A video that is in place stays. Nothing is overwritten: where another file has the name, the video gets the name with
    ``_dup1`` (``_dup2``, …) at its end; a copy that is there already counts. The routing manifest gets an entry of type
    ``behavior_videos_flattened``. One file's failure does not stop the others.

    Returns:
        Where the videos are that were moved or copied.

    Raises:
        ModuleFailed: some could not be moved, all of them named, or the routing manifest is broken.
        StepTimedOut: it took longer than ``timeout_s``; the rest stays where it is.
    """
    session = context.path(parameters.output_session_folder or "")
    manifest = session / native_path(parameters.manifest_path or f"{METADATA}/routing_manifest.json").expanduser()
    written = read_entries(manifest)
    name = parameters.behavior_videos_root
    target = session / native_path(parameters.behavior_videos_destination or name).expanduser()
    roots = _roots(session, name)
    if not roots:
        context.logger.info("there is no folder %s in %s", name, session)
        return []
    deadline = Deadline(parameters.timeout_s, "bringing the videos together")
    moved: list[Path] = []
    problems: list[str] = []
    try:
        for root in roots:
            for video in _videos(root, parameters):
                deadline.check()
                place = target / video.relative_to(root)
                if _same_place(video, place):
                    continue
                try:
                    moved += _bring(context, video, place, copy_only=parameters.behavior_videos_copy_only)
                except OSError as error:
                    problems.append(f"{as_written(video, session)}: {error}")
                    context.logger.error("%s", problems[-1])
            if (
                parameters.behavior_videos_prune_empty
                and not parameters.behavior_videos_copy_only
                and not _same_place(root, target)
            ):
                _prune(root)
    finally:
        if moved:
            _register(manifest, written, [as_written(path, session) for path in moved])
    if problems:
        raise ModuleFailed(f"{len(problems)} videos stay where they are: {'; '.join(problems[:5])}")
    context.logger.info("%d videos brought together in %s", len(moved), target)
    return moved


def _roots(session: Path, name: str) -> list[Path]:
    """Return the folders of that name, inner ones before outer ones."""
    wanted = os.path.normcase(name)
    found = [
        Path(folder, one)
        for folder, folders, _ in os.walk(session)
        for one in sorted(folders)
        if os.path.normcase(one) == wanted
    ]
    return sorted(found, key=lambda path: (-len(path.parts), str(path)))


def _videos(root: Path, parameters: BehaviorVideosFlatten) -> list[Path]:
    endings = {f".{ending.lower().lstrip('.')}" for ending in parameters.behavior_videos_extensions}
    return [path for path in sorted(root.rglob("*")) if path.suffix.lower() in endings and path.is_file()]


def _same_place(one: Path, other: Path) -> bool:
    return os.path.normcase(one.absolute()) == os.path.normcase(other.absolute())


def _bring(context: ModuleContext, video: Path, place: Path, *, copy_only: bool) -> list[Path]:
    """Move or copy a video to the first name that is free; an equal file at one of these names is the copy."""
    number, wanted = 0, place
    while place.exists():
        if copy_only and filecmp.cmp(video, place, shallow=False):
            context.logger.info("%s is there already", place)
            return []
        number += 1
        place = wanted.with_name(f"{wanted.stem}_dup{number}{wanted.suffix}")
    place.parent.mkdir(parents=True, exist_ok=True)
    if copy_only:
        shutil.copy2(video, place)
    else:
        patiently(partial(shutil.move, video, place))
    context.logger.info("%s %s to %s", "copied" if copy_only else "moved", video, place)
    return [place]


def _prune(root: Path) -> None:
    """Remove the empty folders of a tree, the root itself among them."""
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            Path(folder).rmdir()
        except OSError:  # it holds something
            continue


def _register(manifest: Path, written: dict[str, object], files: list[str]) -> None:
    """Add files to the manifest's entry on flattened videos."""
    entries = written["entries"]
    assert isinstance(entries, list)
    entry = next((one for one in entries if isinstance(one, dict) and one.get("type") == _TYPE), None)
    if entry is None:
        entry = {"type": _TYPE, "files": []}
        entries.append(entry)
    entry["files"] = sorted({*(entry.get("files") or []), *files})
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_json(manifest, written)
