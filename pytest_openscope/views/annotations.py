"""In a job of GitHub Actions: failures as annotations of the lines where they happened."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..log import ExactMasker, mask_text
from ..records import Failure

_MAX_CHARS = 2000


def annotate(failures: Iterable[Failure], root: Path, secrets: Iterable[str] = ()) -> list[str]:
    """Return one workflow command for each failure: of a step, a fixture, the collection or the session itself.

    Args:
        root: pytest's root directory, to which node ids are relative.
        secrets: exact values that may not appear.
    """
    masker = ExactMasker(frozenset(secrets))
    lines = []
    for failure in failures:
        file, line = _place(failure, root)
        where = " ".join(part for part in (str(failure.phase or ""), "step" if failure.step else "", failure.step) if part)
        title = mask_text(f"{where or failure.kind}: {failure.outcome}", masker)
        message = mask_text(failure.message or failure.exception_type or failure.kind, masker)
        lines.append(command(message, title=title, file=file, line=line))
    return lines


def command(message: str, *, title: str = "", file: Path | None = None, line: int | None = None) -> str:
    """Return the workflow command of an error; its file is named relative to the job's workspace."""
    place = _relative(file) if file is not None else ""
    properties = {"file": place, "line": str(line or "") if place else "", "title": title}
    given = ",".join(f"{key}={_escape(value, ':,')}" for key, value in properties.items() if value)
    return f"::error {given}::{_escape(message[:_MAX_CHARS])}"


def _escape(text: str, more: str = "") -> str:
    for char in f"%\r\n{more}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _place(failure: Failure, root: Path) -> tuple[Path | None, int | None]:
    """Return the innermost line of the experiment's own code on the way to the failure; else the file of its step."""
    for link in reversed(failure.chain):
        for frame in reversed(link.frames):
            path = Path(str(frame.get("file") or ""))
            if path.is_relative_to(root) and "site-packages" not in path.parts and path.is_file():
                return path, int(frame.get("line") or 0) or None
    named = root / failure.nodeid.partition("::")[0]
    return (named, None) if failure.nodeid and named.is_file() else (None, None)


def _relative(file: Path) -> str:
    workspace = os.environ.get("GITHUB_WORKSPACE")
    try:
        return file.resolve().relative_to(Path(workspace).resolve()).as_posix() if workspace else file.as_posix()
    except ValueError:
        return file.as_posix()
