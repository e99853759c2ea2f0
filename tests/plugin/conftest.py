"""A small rig in a folder of its own, and what its session left behind."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import warm

from pytest_openscope.log.lines import LogEntry, read_log

# pytester forgets what a run in this process imported. What sessions need is not to be imported again and again.
warm.import_all()
for _name in warm.PLUGINS:
    importlib.import_module(_name)

HANDLED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)]
FLAGS = ("-p", "pytest_openscope.plugin", "-p", "pytest_timeout")
#: For a computer that does much else. Waits end with what they wait for.
PATIENCE_S = 100.0
IDS = ("--subject-id", "mouse7", "--user-id", "ada", "--no-input")


class Rig:
    """Runs experiments in a process of their own."""

    def __init__(self, pytester: pytest.Pytester, path: Path | None = None) -> None:
        self.pytester = pytester
        self.path = path or pytester.path
        self.write("rig.yaml", "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n")

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def steps(self, body: str) -> None:
        """Write ``test_experiment.py``."""
        head = "import ctypes, logging, os, signal, sys, threading, time, warnings\nimport pytest\n"
        head += "from tests.plugin.step_kit import *\n"
        self.write("test_experiment.py", head + body)

    def command(self, *arguments: object, ids: bool = True, rig: bool = True) -> list[str]:
        given = ("--rig-config", "rig.yaml", *(IDS if ids else ())) if rig else ()
        return [sys.executable, "-m", "pytest", *FLAGS, *given, *map(str, arguments)]

    def start(self, *arguments: object, ids: bool = True, rig: bool = True, **options: Any) -> Any:
        """Start an experiment whose output nobody reads; ``options`` are those of :func:`warm.start`."""
        given = {"cwd": self.path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        return warm.start(self.command(*arguments, ids=ids, rig=rig), **given)

    def run(self, *arguments: object, ids: bool = True, rig: bool = True, fresh: bool = False) -> pytest.RunResult:
        """Run an experiment to its end; several rigs may do so at once, in threads."""
        began = time.monotonic()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.path), os.environ["PYTHONPATH"]])}
        # To files: a process that an experiment leaves behind would hold a pipe open.
        files = [self.path / "stdout", self.path / "stderr"]
        with open(files[0], "wb") as out, open(files[1], "wb") as err:
            process = self.start(*arguments, ids=ids, rig=rig, env=environment, stdout=out, stderr=err, fresh=fresh)
            try:
                code = process.wait(PATIENCE_S)
            finally:
                process.kill()
        printed, told = (path.read_text(encoding="utf-8", errors="replace").splitlines() for path in files)
        print(*printed, *told, sep="\n")
        return pytest.RunResult(code, printed, told, time.monotonic() - began)

    def run_here(self, *arguments: object, ids: bool = True, rig: bool = True) -> pytest.RunResult:
        """Run in this process, at a third of the cost: for what ends by itself, without signals, kills or threads left over."""
        for path in self.path.rglob("conftest.py"):
            # What it replaces in the package would stay replaced for every later test of this process.
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(import|from) pytest_openscope\b", text), f"{path.name} needs a process of its own"
        _, _, _, *line = self.command(*arguments, ids=ids, rig=rig)
        # A session keeps SIGINT after its end, since its process is about to leave. This one is not.
        handlers = {number: signal.getsignal(number) for number in HANDLED}
        logging_as_it_was = logging.Logger.callHandlers, logging.Logger.getEffectiveLevel
        try:
            result = self.pytester.runpytest_inprocess(*line)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert (logging.Logger.callHandlers, logging.Logger.getEffectiveLevel) == logging_as_it_was
        return result

    def beside(self, name: str) -> Rig:
        """Return another rig, in a folder below this one."""
        path = self.path / name
        path.mkdir()
        return Rig(self.pytester, path)

    def at_once(self, check: Callable[[Rig, Any], None], cases: Sequence[Any]) -> None:
        """Check every case on a rig of its own, all at the same time: for sessions that do little but wait.

        Where each starts an interpreter of its own, two at a time.
        """
        rigs = [self.beside(f"rig{number}") for number in range(len(cases))]
        with ThreadPoolExecutor(2 if sys.platform == "win32" else len(cases)) as pool:
            checked = [pool.submit(check, rig, case) for rig, case in zip(rigs, cases, strict=True)]
        for case, one in zip(cases, checked, strict=True):
            if error := one.exception():
                raise AssertionError(f"{case}: {error}") from error

    @property
    def folders(self) -> list[Path]:
        roots = [self.path / "sessions", self.path / "sessions" / "dry_runs"]
        return sorted(
            path for root in roots if root.is_dir() for path in root.iterdir() if (path / "launcher_metadata").is_dir()
        )

    @property
    def folder(self) -> Path:
        (only,) = self.folders
        return only

    def metadata(self, name: str) -> Any:
        return json.loads((self.folder / "launcher_metadata" / name).read_text(encoding="utf-8"))

    @property
    def end(self) -> Any:
        return self.metadata("end_state.json")

    @property
    def debug(self) -> Any:
        return self.metadata("debug_state.json")

    @property
    def has_debug(self) -> bool:
        return (self.folder / "launcher_metadata" / "debug_state.json").exists()

    @property
    def log(self) -> list[LogEntry]:
        return list(read_log(self.folder / "launcher_metadata" / "launcher.log"))

    @property
    def messages(self) -> str:
        return "\n".join(f"{entry.level} {entry.phase} {entry.step} {entry.logger} {entry.message}" for entry in self.log)

    def outcomes(self) -> dict[str, str]:
        """Step name to outcome or ``skipped: why``; the worst of several with one name."""
        return {step["name"]: step["outcome"] or f"skipped: {step['skipped']}" for step in self.end["steps"]}

    def wait_for(self, what: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
        """Wait until ``what`` gives something; the sidecar works after the experiment's process has gone."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = what()
            except (OSError, ValueError, KeyError, psutil.Error):
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, "it did not come in time"
            time.sleep(0.05)


@pytest.fixture
def bench(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "xdg"))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return Rig(pytester)
