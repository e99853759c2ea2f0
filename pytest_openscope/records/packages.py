"""Installed packages: which ones, and from which code, as pip's ``freeze`` and ``git_revisions.json`` tell it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..log import mask_text
from .revisions import describe_repository, installed_versions, repository_root

_INSTALLED = ("site-packages", "dist-packages")


def freeze() -> list[str]:
    """Return every installed package in the form of ``pip freeze``, sorted by name.

    Names are normalised (``pyyaml``), as they stand in the names of the folders that say what is installed.
    """
    found = installed_versions()
    origins: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys(sys.path):
        for path in Path(folder or ".").glob("*.dist-info/direct_url.json"):
            name = path.parent.name.partition("-")[0].lower().replace("_", "-").replace(".", "-")
            with suppress(OSError):
                origins.setdefault(name, _parse_origin(path.read_text(encoding="utf-8")))
    return [_requirement(name, version, origins.get(name, {})) for name, version in found.items()]


def _requirement(name: str, version: str, origin: dict[str, Any]) -> str:
    url = mask_text(str(origin.get("url") or ""))
    if commit := origin.get("vcs_info", {}).get("commit_id"):
        return f"{name} @ {origin['vcs_info'].get('vcs', 'git')}+{url}@{commit}"
    if origin.get("dir_info", {}).get("editable"):
        return f"-e {_path_of(url)}  # {name}=={version}"
    return f"{name} @ {url}" if url else f"{name}=={version}"


def _origin(distribution: metadata.Distribution) -> dict[str, Any]:
    """Return where a package that comes from no index was installed from (``direct_url.json``, PEP 610)."""
    try:
        return _parse_origin(distribution.read_text("direct_url.json") or "{}")
    except OSError:
        return {}


def _parse_origin(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


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
    try:
        distribution = metadata.distribution(top)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(top)
        if not names:
            return None
        distribution = metadata.distribution(names[0])
    origin = _origin(distribution)
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
