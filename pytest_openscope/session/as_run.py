"""What a session runs with, kept in its folder, so that it can be repeated and compared with today: rig file, parameter file,
tests, scripts, modules of the lab, packages.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import __version__
from ..log import ExactMasker, mask_json, mask_text
from ..records import METADATA, freeze
from ..system import read_json, write_atomic, write_json

if TYPE_CHECKING:
    from .state import SessionState

#: Below ``launcher_metadata``.
_AS_RUN = "as_run"
_MANIFEST = "as_run.json"
_FREEZE = "pip_freeze.txt"
_FILES, _OUTSIDE = "files", "outside"
#: A larger file is named with its checksum, but not copied.
_KEPT_BYTES = 5_000_000
_INSTALLED = ("site-packages", "dist-packages")
#: Files that hold values: what looks like a secret in them is hidden too.
_VALUES = ("rig", "parameters", "configuration")


class AsRun:
    """Keeps copies of files, each once, before the first step and, of modules that steps import, at the end.

    They keep their layout below pytest's root folder; a file from elsewhere has a numbered folder of its own. A manifest says
    where they came from.
    """

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._folder = session.metadata / _AS_RUN
        self._files: dict[str, dict[str, Any]] = {}
        config, configuration = session.config, session.configuration
        invocation = config.invocation_params.dir
        base = config.rootpath if invocation.is_relative_to(config.rootpath) else invocation
        self._base = base.absolute()
        self._exact = ExactMasker(session.secrets)
        environment = {name: value for name, value in os.environ.items() if name.startswith("OPENSCOPE_")}
        if "PYTEST_ADDOPTS" in os.environ:
            environment["PYTEST_ADDOPTS"] = os.environ["PYTEST_ADDOPTS"]
        self._facts = {
            "base": str(self._base),
            "session_uuid": session.folder.name,
            # With its program before them no argument is taken for another program's password.
            "command": ["pytest", *map(str, config.invocation_params.args)],
            "invocation_directory": str(invocation),
            "output_root": str(_output_root(session)),
            "rig_file": str(configuration.rig_file),
            "parameter_file": str(configuration.parameter_file) if configuration.parameter_file else None,
            "environment": environment,
            "python": platform.python_version(),
            "python_executable": sys.executable,
            "platform": platform.platform(),
            "version": __version__,
        }

    def begin(self) -> None:
        configuration, config = self._session.configuration, self._session.config
        files = [
            (configuration.rig_file, "rig"),
            (configuration.parameter_file, "parameters"),
            (config.inipath, "configuration"),
        ]
        files += [(path, "script") for path in self._scripts()]
        self._keep(files)
        self._session.guard("keeping the list of packages", self._keep_packages)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep tests, conftest files and what they import."""
        conftests = [getattr(plugin, "__file__", None) for plugin in session.config.pluginmanager.get_plugins()]
        found = [(Path(name), "tests") for name in conftests if name and Path(name).name == "conftest.py"]
        found += [(item.path, "tests") for item in session.items]
        self._keep([*dict.fromkeys(found), *self._modules()])

    def pytest_sessionfinish(self) -> None:
        self._keep(list(self._modules()))

    def _keep_packages(self) -> None:
        self._folder.mkdir(exist_ok=True)
        write_atomic(self._folder / _FREEZE, "".join(f"{line}\n" for line in freeze()).encode())

    def _keep(self, files: list[tuple[Path | None, str]] | list[tuple[Path, str]]) -> None:
        def keep() -> None:
            for path, role in files:
                if path is not None and path.is_file() and not path.is_relative_to(self._session.folder):
                    self._copy(path.absolute(), role)
            self._folder.mkdir(exist_ok=True)
            manifest = {**self._facts, "files": list(self._files.values())}
            write_json(self._folder / _MANIFEST, mask_json(manifest, self._session.secrets))

        self._session.guard("keeping the files as run", keep)

    def _copy(self, path: Path, role: str) -> None:
        """Copy a file as it is now, without secrets; one that is kept already stays."""
        if str(path) in self._files:
            return
        size = path.stat().st_size
        entry: dict[str, Any] = {"path": str(path), "role": role, "kept": None, "masked": False}
        if size <= _KEPT_BYTES:
            content = path.read_bytes()
            kept = _masked(content, masker_of(role, self._exact))
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

    def _scripts(self) -> Iterator[Path]:
        """Yield scripts beside the parameter file; those of the experiment's repository are known by its commit."""
        session, configuration = self._session, self._session.configuration
        names = [entry.module_path for entry in session.entries if entry.module_type != "launcher_module"]
        names += [session.settings.script_path or ""]
        for name in filter(None, names):
            text = name if sys.platform == "win32" else name.replace("\\", "/")
            yield from (folder / text for folder in configuration.script_folders if (folder / text).is_file())

    def _modules(self) -> Iterator[tuple[Path, str]]:
        """Yield the lab's own modules that are loaded: those below the folder of tests, or beside the rig file."""
        places = tuple(f"{folder}{os.sep}" for folder in (self._base, self._session.configuration.rig_file.parent.absolute()))
        for module in list(sys.modules.values()):
            name = getattr(module, "__file__", None)
            if not isinstance(name, str) or not name.startswith(places):
                continue
            path = Path(name)
            if path.suffix == ".py" and not any(part in _INSTALLED or part.startswith(".") for part in path.parts[-8:]):
                yield path, "module"


def _output_root(session: SessionState) -> Path:
    """Return the output root as it was given: a dry run has its own folder below it."""
    root = session.settings.output_root.absolute()
    return root.parent if session.dry_run and root.name == "dry_runs" else root


def keep_as_run(session: SessionState) -> None:
    """Keep what the session runs with, now and at its later stages; a validation runs no experiment."""
    if session.validating:
        return

    def begin() -> None:
        kept = AsRun(session)
        kept.begin()
        session.config.pluginmanager.register(kept, "openscope-as-run")

    session.guard("keeping the files as run", begin)


def _masked(content: bytes, mask: Callable[[str], str]) -> bytes:
    """Return a file's content without secrets; what is no text is taken as it is."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    return mask(text).encode("utf-8")


def masker_of(role: str, exact: ExactMasker) -> Callable[[str], str]:
    """Return what masks a kept file's text: in one that holds values, also what only looks like a secret."""
    return partial(mask_text, secrets=exact) if role in _VALUES else exact


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_today(entry: Mapping[str, Any], exact: ExactMasker) -> str:
    """Say how a file of a manifest is today: ``same``, ``changed`` or ``gone``."""
    path = Path(entry["path"])
    try:
        if entry.get("kept") is None:
            today = _sha256(path)
        else:
            today = hashlib.sha256(_masked(path.read_bytes(), masker_of(entry["role"], exact))).hexdigest()
    except OSError:
        return "gone"
    return "same" if today == entry.get("sha256") else "changed"


def read_as_run(session_folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a session, with ``folder`` (of the copies) and ``freeze``; None when it has none."""
    folder = session_folder / METADATA / _AS_RUN
    manifest = read_json(folder / _MANIFEST)
    if manifest is None:
        return None
    try:
        packages = (folder / _FREEZE).read_text(encoding="utf-8").splitlines()
    except OSError:
        packages = []
    return {**manifest, "folder": folder, "freeze": packages}
