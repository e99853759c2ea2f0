"""Results that a step attaches to its session."""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = "attachments"


def keep(path: Path, session_folder: Path) -> tuple[Path, str]:
    """Return where an attached file lies and its name relative to the session folder.

    A file from outside is copied into the session folder first, never over another one.

    Raises:
        FileNotFoundError: there is no such file.
    """
    __tracebackhide__ = True
    source = path if path.is_absolute() else session_folder / path
    if not source.is_file():
        source = path.resolve()
    if not source.is_file():
        raise FileNotFoundError(f"{path}: no such file to attach")
    if not source.resolve().is_relative_to(session_folder.resolve()):
        source = _copy_in(source, session_folder / FOLDER)
    return source, source.resolve().relative_to(session_folder.resolve()).as_posix()


def _copy_in(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    target, number = folder / source.name, 2
    while target.exists():
        target, number = folder / f"{source.stem}[{number}]{source.suffix}", number + 1
    shutil.copy2(source, target)
    return target
