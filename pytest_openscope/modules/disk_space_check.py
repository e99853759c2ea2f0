"""Ready-made step: is there room for the data?

Parameters: ``required_free_gb`` (GiB, required), ``path`` or ``disk_space_check_path`` (default: the session folder),
``prompt_to_free_space`` (default true: let the operator free space, then look again), ``allow_override`` (let the operator go
on with too little).
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from .context import ModuleContext, ModuleFailed, ReadyMade

GIB = 1024**3


def would(parameters: dict[str, Any]) -> str:
    """Say what a dry run leaves out."""
    return f"check that {parameters.get('required_free_gb')} GiB are free in {_place(parameters)}"


def run(context: ModuleContext) -> None:
    """Measure the free space and compare it with what is required.

    Raises:
        ModuleFailed: there is less, the disk cannot be asked, or ``required_free_gb`` is no positive number.
    """
    required_gb = _required_gb(context.full_parameters)
    folder = context.path(_place(context.full_parameters))
    while True:
        free_gb, found = _look(folder, required_gb)
        context.record("disk_space_free", round(free_gb, 3), "GiB")
        if free_gb >= required_gb:
            context.logger.info("%s", found)
            return
        context.logger.warning("%s", found)
        if not _wants_another_look(context, found):
            break
    if context.parameters.get("allow_override"):
        try:
            agreed = context.confirm(f"Not enough free disk space: {found}. Go on anyway?")
        except EOFError:
            agreed = False
        if agreed:
            context.logger.warning("the operator goes on with too little free space")
            return
    raise ModuleFailed(f"not enough free disk space: {found}")


def _look(folder: Path, required_gb: float) -> tuple[float, str]:
    """Return how much is free, in GiB, and the same in words."""
    try:
        usage = shutil.disk_usage(_existing(folder))
    except OSError as error:
        raise ModuleFailed(f"the free space of {folder} cannot be measured: {error}") from error
    free_gb = usage.free / GIB
    words = f"{free_gb:,.2f} GiB of {usage.total / GIB:,.2f} GiB are free in {folder}, {required_gb:g} GiB are required"
    return free_gb, words


def _wants_another_look(context: ModuleContext, found: str) -> bool:
    """Ask the operator to free space; False where nobody is there, or gives up."""
    if context.full_parameters.get("prompt_to_free_space") is False:
        return False
    try:
        answer = context.ask(f"Not enough free disk space: {found}. Free some, then press Enter to look again (q: give up):")
    except EOFError:
        return False
    return answer.strip().lower() not in ("q", "quit", "n", "no")


STEPS = {"disk_space_check": ReadyMade(run, would)}


def _place(parameters: dict[str, Any]) -> str:
    return str(
        parameters.get("disk_space_check_path") or parameters.get("path") or parameters.get("output_session_folder") or ""
    )


def _required_gb(parameters: dict[str, Any]) -> float:
    value = parameters.get("required_free_gb")
    try:
        required_gb = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        required_gb = math.nan
    if isinstance(value, bool) or not (math.isfinite(required_gb) and required_gb > 0):
        raise ModuleFailed(f"required_free_gb must be a number of GiB above 0, not {value!r}")
    return required_gb


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: the disk is the same."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)
