from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm

EXAMPLES = Path(__file__).parents[2] / "example_rigs"


@dataclass
class Done:
    """One run of an example: what it printed, and what stands in its session folder."""

    code: int
    output: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "launcher_metadata" / "launcher.log").read_text(encoding="utf-8")

    @property
    def end_state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))
        return state

    @property
    def outcomes(self) -> dict[str, str | None]:
        """Steps without fixtures, in the order in which they ran; None for skipped ones."""
        return {step["name"]: step["outcome"] for step in self.end_state["steps"] if step["kind"] != "fixture"}

    def measured(self, name: str) -> Any:
        return next(one["value"] for one in self.end_state["measurements"] if one["name"] == name)


class Example:
    """A copy of an example rig, run in a process of its own as its README says."""

    def __init__(self, name: str, tmp_path: Path) -> None:
        self.folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, self.folder, ignore=shutil.ignore_patterns("sessions", "__pycache__"))
        self.environ = {key: text for key, text in os.environ.items() if not key.startswith(("PYTEST_", "OPENSCOPE_", "CI"))}
        # A plugin of the tests, not of a rig; it takes a third of a short session to import.
        self.environ["OPENSCOPE_NO_SESSION_REPORT"] = "1"
        self.environ["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
        for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_STATE_HOME"):
            self.environ[name] = str(tmp_path / "home")

    def run(self, *arguments: str, code: int = 0) -> Done:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rig-config", "rig.yaml", "--no-input"]
        command += ["--subject-id", "demo", "--user-id", "me", *arguments]
        done = warm.run(command, cwd=self.folder, env=self.environ, timeout=600)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        line = next(line for line in output.splitlines() if line.startswith("session folder: "))
        return Done(done.returncode, output, Path(line.removeprefix("session folder: ")))


@pytest.fixture
def minimal(tmp_path: Path) -> Example:
    return Example("minimal", tmp_path)


@pytest.fixture
def camera(tmp_path: Path) -> Example:
    return Example("camera", tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Example:
    example = Example("bench", tmp_path)
    # Its laser's safe-state command starts "python".
    example.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), example.environ.get("PATH", "")])
    return example


@pytest.fixture
def openscope(tmp_path: Path) -> Example:
    return Example("openscope", tmp_path)
