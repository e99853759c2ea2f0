"""The files and packages that a session ran with, kept in its folder, so that it can be repeated and compared with today."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..system import read_json, write_atomic, write_json
from .folder import METADATA

#: Below ``launcher_metadata``.
AS_RUN = "as_run"
MANIFEST = "as_run.json"
FREEZE = "pip_freeze.txt"
_FILES, _OUTSIDE = "files", "outside"
#: A larger file is named with its checksum, but not copied.
_KEPT_BYTES = 5_000_000


class AsRun:
    """Keeps copies of files in a session folder, each once, and a manifest that says where they came from.

    Args:
        metadata: the session's ``launcher_metadata``.
        base: folder whose layout the copies keep; a file from elsewhere has a numbered folder of its own.
        facts: what else the manifest holds.
        mask: takes known secrets out of the manifest, and out of each file's text.
    """

    def __init__(self, metadata: Path, base: Path, facts: Mapping[str, Any], mask: Callable[[Any], Any]) -> None:
        self._folder, self._base, self._mask = metadata / AS_RUN, base, mask
        self._facts = {"base": str(base), **facts}
        self._files: dict[str, dict[str, Any]] = {}

    def keep(self, path: Path, role: str, mask: Callable[[str], str]) -> None:
        """Copy a file as it is now, without the secrets that ``mask`` finds in it; one that is kept already stays.

        Raises:
            OSError: it cannot be read, or the copy cannot be written.
        """
        path = path.absolute()
        if str(path) in self._files:
            return
        size = path.stat().st_size
        entry: dict[str, Any] = {"path": str(path), "role": role, "kept": None, "masked": False}
        if size <= _KEPT_BYTES:
            content = path.read_bytes()
            kept = masked_content(content, mask)
            place = self._place(path)
            (self._folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / place, kept)
            # The checksum of a file that holds a short password would give it away.
            entry.update(kept=place, masked=kept != content, sha256=hashlib.sha256(kept).hexdigest())
        else:
            entry.update(sha256=_sha256(path), bytes=size)
        self._files[str(path)] = entry

    def _place(self, path: Path) -> str:
        # Session folders may lie below the tests: pytest must not collect the copies.
        suffix = ".txt" if path.suffix == ".py" else ""
        if path.is_relative_to(self._base):
            return f"{_FILES}/{path.relative_to(self._base).as_posix()}{suffix}"
        number = sum(str(one["kept"]).startswith(f"{_OUTSIDE}/") for one in self._files.values())
        return f"{_OUTSIDE}/{number}/{path.name}{suffix}"

    def freeze(self, lines: list[str]) -> None:
        """Write the installed packages.

        Raises:
            OSError: the file cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        write_atomic(self._folder / FREEZE, "".join(f"{line}\n" for line in lines).encode())

    def write(self) -> None:
        """Write the manifest.

        Raises:
            OSError: the file cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        write_json(self._folder / MANIFEST, self._mask({**self._facts, "files": list(self._files.values())}))


def masked_content(content: bytes, mask: Callable[[str], str]) -> bytes:
    """Return a file's content without secrets; what is no text is taken as it is."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return mask(text).encode("utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_today(entry: Mapping[str, Any], mask: Callable[[str], str]) -> str:
    """Say how a file of a manifest is today: ``same``, ``changed`` or ``gone``."""
    path = Path(entry["path"])
    try:
        if entry.get("kept") is None:
            today = _sha256(path)
        else:
            today = hashlib.sha256(masked_content(path.read_bytes(), mask)).hexdigest()
    except OSError:
        return "gone"
    return "same" if today == entry.get("sha256") else "changed"


def read_as_run(session_folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a session, with ``folder`` (of the copies) and ``freeze``; None when it has none."""
    folder = session_folder / METADATA / AS_RUN
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return None
    try:
        freeze = (folder / FREEZE).read_text(encoding="utf-8").splitlines()
    except OSError:
        freeze = []
    return {**manifest, "folder": folder, "freeze": freeze}
