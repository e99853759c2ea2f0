"""Which code a session ran: commits read from ``.git`` folders without the git program, and the installed packages.

What is found stands in ``git_revisions.json`` and, in the form of pip's ``freeze``, beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .. import __version__
from ..log import mask_text
from ..system import Git, GitFailed

#: A work tree so large that git takes longer is described without ``dirty``.
GIT_TIMEOUT_S = 10.0
_MAX_LINKS = 10
_INSTALLED = ("site-packages", "dist-packages")
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
    return {name: version for name, (version, _) in sorted(_installed_packages(paths).items())}


def _installed_packages(paths: Sequence[str] | None = None) -> dict[str, tuple[str, str]]:
    """Return version and metadata folder of every installed package, by normalised name."""
    found: dict[str, tuple[str, str]] = {}
    for folder in dict.fromkeys(sys.path if paths is None else paths):
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a hundred paths are made for nothing
        except OSError:
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            package, dash, version = stem.partition("-")
            if dash and kind in ("dist-info", "egg-info") and package[:1].isalnum():
                normalised = package.lower().replace("_", "-").replace(".", "-")
                found.setdefault(normalised, (version.partition("-py")[0], os.path.join(folder, name)))
    return found


def freeze() -> list[str]:
    """Return every installed package in the form of ``pip freeze``, sorted by name.

    Names are normalised (``pyyaml``), as they stand in the names of the folders that say what is installed.
    """
    found = sorted(_installed_packages().items())
    return [
        _requirement(name, version, _package_origin(_read(Path(folder, "direct_url.json"))))
        for name, (version, folder) in found
    ]


def _requirement(name: str, version: str, origin: dict[str, Any]) -> str:
    url = mask_text(str(origin.get("url") or ""))
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f"{name} @ {origin['vcs_info'].get('vcs', 'git')}+{url}@{commit}"
    if origin.get("dir_info", {}).get("editable"):
        return f"-e {_path_of(url)}  # {name}=={version}"
    return f"{name} @ {url}" if url else f"{name}=={version}"


def _package_origin(direct_url: str | None) -> dict[str, Any]:
    """Return where a package that comes from no index was installed from (``direct_url.json``, PEP 610)."""
    try:
        found: dict[str, Any] = json.loads(direct_url or "{}")
    except ValueError:
        return {}
    return found


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path)
    return path[1:] if len(path) > 2 and path[0] == "/" and path[2] == ":" else path


def package_revisions(modules: Iterable[str], known: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield an entry of ``git_revisions.json`` for each package that holds one of ``modules`` (``my_lab.cameras``).

    Nothing is imported. A package in a work tree has commit, branch and ``dirty``; an installed one its version, and its commit
    where it was installed from a repository.

    Args:
        modules: names of modules; what this Python does not have is left out.
        known: paths of repositories that are listed already.
    """
    seen = set(known)
    for top in dict.fromkeys(module.partition(".")[0] for module in modules):
        folder = _folder_of(top)
        if folder is None:
            continue
        root = repository_root(folder)
        if root is not None and not any(part in _INSTALLED for part in folder.relative_to(root).parts):
            if str(root) not in seen:
                seen.add(str(root))
                yield {**describe_repository(root, root.name), "source": "checkout"}
        elif (entry := _installed(top, folder)) and entry["name"] not in seen:
            seen.add(entry["name"])
            yield entry


def _folder_of(top: str) -> Path | None:
    try:
        spec = find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    place = places[0] if places else spec.origin if spec.has_location else None
    if place is None:
        return None
    path = Path(place).resolve()
    return path if path.is_dir() else path.parent


def _installed(top: str, folder: Path) -> dict[str, Any] | None:
    from importlib import metadata

    try:
        distribution = metadata.distribution(top)
    except metadata.PackageNotFoundError:
        # All installed metadata are read for it: 100 ms, which modules in a rig's own folder need not cost.
        inside = any(part in _INSTALLED for part in folder.parts)
        names = metadata.packages_distributions().get(top) if inside else None
        if not names:
            return None
        distribution = metadata.distribution(names[0])
    origin = _package_origin(distribution.read_text("direct_url.json"))
    entry: dict[str, Any] = {
        "name": distribution.metadata["Name"] or top,
        "path": str(folder),
        "commit": origin.get("vcs_info", {}).get("commit_id"),
        "package_version": distribution.version,
        "source": "installed package",
    }
    if origin.get("url"):
        entry["repository_url"] = mask_text(str(origin["url"]))
    return entry
