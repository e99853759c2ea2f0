"""Keeps what a session runs with: rig file, parameter file, tests, scripts, modules of the lab, packages."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import __version__
from ..log import ExactMasker, mask_json, mask_text
from ..records import AsRun, freeze

if TYPE_CHECKING:
    from .state import SessionState

_INSTALLED = ("site-packages", "dist-packages")
#: Files that hold values: what looks like a secret in them is hidden too.
_VALUES = ("rig", "parameters", "configuration")


class AsRunKeeper:
    """Keeps files before the first step and, of modules that steps import, at the end."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        config, configuration = session.config, session.configuration
        invocation = config.invocation_params.dir
        base = config.rootpath if invocation.is_relative_to(config.rootpath) else invocation
        self._exact = ExactMasker(session.secrets)
        environment = {name: value for name, value in os.environ.items() if name.startswith("OPENSCOPE_")}
        if "PYTEST_ADDOPTS" in os.environ:
            environment["PYTEST_ADDOPTS"] = os.environ["PYTEST_ADDOPTS"]
        facts = {
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
        self._kept = AsRun(session.metadata, base.absolute(), facts, partial(mask_json, secrets=session.secrets))
        self._base = str(base.absolute())

    def begin(self) -> None:
        configuration, config = self._session.configuration, self._session.config
        files = [
            (configuration.rig_file, "rig"),
            (configuration.parameter_file, "parameters"),
            (config.inipath, "configuration"),
        ]
        files += [(path, "script") for path in self._scripts()]
        self._keep(files)
        self._session.guard("keeping the list of packages", lambda: self._kept.freeze(freeze()))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep tests, conftest files and what they import."""
        conftests = [getattr(plugin, "__file__", None) for plugin in session.config.pluginmanager.get_plugins()]
        found = [(Path(name), "tests") for name in conftests if name and Path(name).name == "conftest.py"]
        found += [(item.path, "tests") for item in session.items]
        self._keep([*dict.fromkeys(found), *self._modules()])

    def pytest_sessionfinish(self) -> None:
        self._keep(list(self._modules()))

    def _keep(self, files: list[tuple[Path | None, str]] | list[tuple[Path, str]]) -> None:
        def keep() -> None:
            for path, role in files:
                if path is not None and path.is_file() and not path.is_relative_to(self._session.folder):
                    self._kept.keep(path, role, partial(mask_text, secrets=self._exact) if role in _VALUES else self._exact)
            self._kept.write()

        self._session.guard("keeping the files as run", keep)

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
        keeper = AsRunKeeper(session)
        keeper.begin()
        session.config.pluginmanager.register(keeper, "openscope-as-run")

    session.guard("keeping the files as run", begin)
