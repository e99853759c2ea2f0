"""Which code a session ran: commits read from ``.git`` folders without the git program, versions of installed packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..system import Git, GitFailed

#: A work tree so large that git takes longer is described without ``dirty``.
GIT_TIMEOUT_S = 10.0
_MAX_LINKS = 10
#: New files in submodules do not count here: Python's caches are among them.
_STATUS = ("--porcelain", "-z", "--no-renames", "--untracked-files=normal", "--ignore-submodules=untracked")


def git_revisions(folders: Iterable[Path], *, names: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return the content of ``git_revisions.json``: each repository that holds one of ``folders``, once, and this package.

    ``names`` maps a repository's path to the name to show; the folder's name otherwise. A folder under no repository is
    left out.
    """
    found: list[dict[str, Any]] = []
    seen: set[Path] = set()
    for folder in folders:
        root = repository_root(folder)
        if root is None or root in seen:
            continue
        seen.add(root)
        found.append(describe_repository(root, (names or {}).get(str(root), root.name)))
    package = Path(__file__).resolve().parents[1]
    own: dict[str, Any] = {"name": "pytest-openscope", "path": str(package)}
    checkout = repository_root(package)
    if checkout is not None and (checkout / "pytest_openscope").is_dir():
        own.update(describe_repository(checkout, "pytest-openscope"), path=str(checkout))
    own.update(package_version=__version__, source="checkout" if "commit" in own else "installed package")
    return [*found, own]


def repository_root(folder: Path) -> Path | None:
    """Return the nearest folder at or above ``folder`` that has a ``.git``, or None."""
    try:
        start = folder.resolve()
    except OSError:
        return None
    for candidate in (start, *start.parents):
        try:
            if (candidate / ".git").exists():
                return candidate
        except OSError:
            return None
    return None


def describe_repository(root: Path, name: str) -> dict[str, Any]:
    """Return ``name``, ``path``, ``commit`` ``branch`` and ``dirty`` (None: none, or unknown), and any ``repository_url``."""
    facts: dict[str, Any] = {"name": name, "path": str(root), "commit": None, "branch": None}
    git = _git_folder(root)
    if git is None:
        return facts
    common = _common_folder(git)
    head = _read(git / "HEAD").strip()
    if head.startswith("ref:"):
        reference = head[4:].strip()
        facts["branch"] = reference.removeprefix("refs/heads/")
        facts["commit"] = _resolve(reference, git, common)
    elif _is_hash(head):
        facts["commit"] = head
    if facts["commit"] is None:
        facts["commit"] = _ask_git(root)
    facts["dirty"] = is_dirty(root)
    url = _origin(_read(common / "config"))
    if url:
        from ..log import mask_text

        facts["repository_url"] = mask_text(url)
    return facts


def _git_folder(root: Path) -> Path | None:
    """Follow the ``gitdir:`` file of worktrees and submodules."""
    git = root / ".git"
    if git.is_dir():
        return git
    text = _read(git).strip()
    if not text.startswith("gitdir:"):
        return None
    return (root / text[7:].strip()).resolve()


def _common_folder(git: Path) -> Path:
    text = _read(git / "commondir").strip()
    return (git / text).resolve() if text else git


def _resolve(reference: str, git: Path, common: Path) -> str | None:
    for _ in range(_MAX_LINKS):
        text = _read(git / reference).strip() or _read(common / reference).strip()
        if text.startswith("ref:"):
            reference = text[4:].strip()
            continue
        if _is_hash(text):
            return text
        break
    for line in _read(common / "packed-refs").splitlines():
        commit, _, packed = line.partition(" ")
        if packed.strip() == reference and _is_hash(commit):
            return commit
    return None


def _is_hash(text: str) -> bool:
    return len(text) in (40, 64) and all(char in "0123456789abcdef" for char in text)


def _origin(config: str) -> str:
    """Return the URL of the remote ``origin``, else of the first remote."""
    section, first, origin = "", "", ""
    for line in config.splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section.startswith('[remote "') and text.partition("=")[0].strip() == "url":
            url = text.partition("=")[2].strip()
            first = first or url
            if section == '[remote "origin"]':
                origin = origin or url
    return origin or first


def _ask_git(root: Path) -> str | None:
    """Ask the git program: for storages that are not plain files (reftable)."""
    try:
        text = Git().answers(root, "rev-parse", "HEAD") or ""
    except GitFailed:
        return None
    return text if _is_hash(text) else None


def is_dirty(root: Path) -> bool | None:
    """Tell whether a work tree has local changes or new files (Python's caches are none); None when git cannot tell."""
    try:
        status = Git()(root, "status", *_STATUS, timeout_s=GIT_TIMEOUT_S)
    except GitFailed:
        return None
    return any(entry and "__pycache__/" not in entry and not entry.endswith(".pyc") for entry in status.split("\0"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def installed_versions(paths: Sequence[str] | None = None) -> dict[str, str]:
    """Return name and version of every installed package, from the names of the folders that say so.

    ``importlib.metadata`` opens a file for each package: 90 ms for a hundred of them, where this takes one.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path if paths is None else paths):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a hundred paths are made for nothing
        except OSError:
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            package, dash, version = stem.partition("-")
            if dash and kind in ("dist-info", "egg-info") and package[:1].isalnum():
                found.setdefault(package.lower().replace("_", "-").replace(".", "-"), version.partition("-py")[0])
    return dict(sorted(found.items()))
