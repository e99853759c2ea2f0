"""A small rig in a folder of its own, and what its session left behind."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.log.session_log import LogEntry, read_log

FLAGS = ("-p", "pytest_openscope.plugin", "-p", "pytest_timeout")
IDS = ("--subject-id", "mouse7", "--user-id", "ada", "--no-input")


class Rig:
    """Runs experiments in a process of their own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path: Path = pytester.path
        self.write("rig.yaml", "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\n")

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def steps(self, body: str) -> None:
        """Write ``test_experiment.py``."""
        head = "import ctypes, logging, os, signal, sys, threading, time, warnings\nimport pytest\n\n"
        self.write("test_experiment.py", head + body)

    def command(self, *arguments: object, ids: bool = True, rig: bool = True) -> list[str]:
        given = ("--rig-config", "rig.yaml", *(IDS if ids else ())) if rig else ()
        return [sys.executable, "-m", "pytest", *FLAGS, *given, *map(str, arguments)]

    def run(self, *arguments: object, ids: bool = True, rig: bool = True) -> pytest.RunResult:
        return self.pytester.run(*self.command(*arguments, ids=ids, rig=rig), timeout=60)

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

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        """Wait until ``what`` gives something; the sidecar works after the experiment's process has gone."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = what()
            except (OSError, ValueError, KeyError):
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
