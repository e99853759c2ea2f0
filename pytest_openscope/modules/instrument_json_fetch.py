"""Ready-made step: put the newest description of the instrument into the session folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from ..config import PathText, Text, key, seconds
from ..system import native_path, write_atomic
from .context import ModuleContext
from .failures import ModuleFailed
from .parameters import FlagText, SecondsText, StepParameters, within


class InstrumentJsonFetch(StepParameters):
    """Parameters of ``instrument_json_fetch``."""

    instrument_json_source_root: PathText = key(
        "C:/Users/ScanImage/Documents/GitHub/slap2_processing", "folder in which the newest one is looked for; or the file"
    )
    instrument_json_source_path: PathText | None = key(None, "the file itself; nothing is looked for then")
    instrument_json_filename: Text = key("instrument.json", "name of the files that are looked for")
    instrument_json_recursive: FlagText = key(True, "look in the folders below, too")
    instrument_json_destination_name: PathText = key("instrument.json", "the copy, in the session folder")
    instrument_json_required: FlagText = key(True, "fail where there is none; false goes on with a warning")
    assume_yes: FlagText = key(False, "ask the operator nothing; a file that is there is replaced")
    timeout_s: SecondsText | None = seconds(60.0, "longest wait for the disk; the operator's answers take no time", 0.001)

    def would(self) -> str:
        source = self.instrument_json_source_path or self.instrument_json_source_root
        return f"copy the newest {self.instrument_json_filename} of {source} into the session folder"


def instrument_json_fetch(context: ModuleContext, parameters: InstrumentJsonFetch) -> Path | None:
    """Find the newest ``instrument.json``, have the operator confirm it or name another, and copy it.

    Without an operator the newest one is taken. It must be JSON.

    Returns:
        The copy; None where there is none and none is required.

    Raises:
        ModuleFailed: there is none, it is no JSON, or another one is in the session folder and nobody says to replace it.
        StepTimedOut: the disk took longer than ``timeout_s``.
    """
    try:
        source = _confirmed(context, parameters, _find(context, parameters))
        content = within(parameters.timeout_s, f"reading {source}", lambda: _read(source))
    except _NoInstrument as none:
        if parameters.instrument_json_required:
            raise ModuleFailed(str(none)) from none
        context.logger.warning("%s; going on without", none)
        return None
    target = context.path(parameters.instrument_json_destination_name)
    if target.exists() and target.read_bytes() != content and not _may_replace(context, parameters, target):
        context.logger.info("%s stays as it is", target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, content)
    context.logger.info("copied %s to %s", source, target)
    return target


class _NoInstrument(Exception):  # noqa: N818 - caught here
    """No description of the instrument can be had."""


def _find(context: ModuleContext, parameters: InstrumentJsonFetch) -> Path | None:
    """Return the file that is named, or the newest one; None where there is none."""
    if parameters.instrument_json_source_path:
        named = context.path(parameters.instrument_json_source_path)
        return named if within(parameters.timeout_s, f"looking for {named}", named.is_file) else None
    root = native_path(parameters.instrument_json_source_root).expanduser()
    return within(
        parameters.timeout_s, f"looking for {parameters.instrument_json_filename} in {root}", lambda: _newest(root, parameters)
    )


def _newest(root: Path, parameters: InstrumentJsonFetch) -> Path | None:
    if root.is_file():
        return root
    times = {path: path.stat().st_mtime for path in _named(root, parameters) if path.is_file()}
    return max(times, key=lambda path: times[path]) if times else None


def _named(root: Path, parameters: InstrumentJsonFetch) -> Iterator[Path]:
    wanted = os.path.normcase(parameters.instrument_json_filename)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(folders) if parameters.instrument_json_recursive else []
        yield from (Path(folder, name) for name in names if os.path.normcase(name) == wanted)


def _confirmed(context: ModuleContext, parameters: InstrumentJsonFetch, found: Path | None) -> Path:
    """Return the file that the operator wants.

    Raises:
        _NoInstrument: there is none.
    """
    sought = parameters.instrument_json_source_path or parameters.instrument_json_source_root
    problem = f"there is no {parameters.instrument_json_filename} in {sought}"
    asks = not parameters.assume_yes
    if found is not None:
        changed = (
            datetime.fromtimestamp(found.stat().st_mtime, timezone.utc).astimezone().isoformat(sep=" ", timespec="seconds")
        )
        context.logger.info("the newest description of the instrument: %s, changed %s", found, changed)
        try:
            if not asks or context.confirm(f"Use {found}, changed {changed}?"):
                return found
        except EOFError:
            return found
        problem = f"the operator does not want {found}"
    while asks:
        try:
            answer = context.ask(f"{problem}. Path of another one (empty: none)").strip().strip('"')
        except EOFError:
            break
        if not answer:
            break
        other = context.path(answer)
        if other.is_file():
            context.logger.info("the operator names %s", other)
            return other
        problem = f"there is no file {other}"
    raise _NoInstrument(problem)


def _read(source: Path) -> bytes:
    content = source.read_bytes()
    try:
        json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise _NoInstrument(f"{source} is no JSON: {error}") from None
    return content


def _may_replace(context: ModuleContext, parameters: InstrumentJsonFetch, target: Path) -> bool:
    if parameters.assume_yes:
        return True
    try:
        return context.confirm(f"Another {target.name} is in the session folder. Replace it?")
    except EOFError:
        raise ModuleFailed(f"another {target} is there, and nobody says whether to replace it (assume_yes does)") from None
