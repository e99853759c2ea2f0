"""The rig of several PCs, run whole on this computer as its README says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import warm

if TYPE_CHECKING:
    from .conftest import Example

pytest.importorskip("baghban", reason="the extra 'bonsai' is not installed")


def states(openscope: Example) -> dict[str, Any]:
    """Return the end state of each PC."""
    found = {}
    for pc in ("stimulus", "camera"):
        (folder,) = (path for path in (openscope.folder / "sessions" / pc).iterdir() if path.name != "dry_runs")
        found[pc] = json.loads((folder / "launcher_metadata" / "end_state.json").read_text(encoding="utf-8"))
    return found


def test_the_whole_day(openscope: Example) -> None:
    command = [sys.executable, "run_day.py"]
    done = subprocess.run(
        command, cwd=openscope.folder, env=openscope.environ, capture_output=True, encoding="utf-8", timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = states(openscope)
    assert {pc: end["outcome"] for pc, end in ended.items()} == {"stimulus": "passed", "camera": "passed"}
    name = ended["stimulus"]["session_uuid"]
    assert ended["camera"]["session_uuid"] == name
    for end in ended.values():
        assert [node["outcome"] for node in end["session_sync"]["nodes"]] == ["passed", "passed"]
    for place in ("archive", "backup"):
        copies = openscope.folder / place / "mouse7" / name
        assert (copies / "stimulus" / "events.csv").read_text().split() == [str(trial) for trial in range(1, 7)]
        assert len((copies / "camera" / "behavior.csv").read_text().splitlines()) == 31
    assert json.loads((copies / "stimulus" / "subject.json").read_text(encoding="utf-8"))["subject_id"] == "mouse7"


def test_a_dry_run_of_each_pc_needs_neither_the_other_one_nor_bonsai(openscope: Example) -> None:
    for rig_file, parameters in (("rig.yaml", "stimulus.json"), ("camera_rig.yaml", "camera.json")):
        done = openscope.run("--rig-config", rig_file, parameters, "--dry-run")
        assert done.end_state["outcome"] == "passed"
        assert not (openscope.folder / "archive").exists()


def test_the_dry_run_reads_the_workflow(openscope: Example) -> None:
    workflow = openscope.folder / "workflows" / "oddball.bonsai"
    workflow.write_text(workflow.read_text(encoding="utf-8").replace('"events_path"', '"event_path"'), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--rig-config", "rig.yaml", "stimulus.json", "--dry-run", "--no-input"]
    command += ["--subject-id", "x", "--user-id", "y"]
    done = warm.run(command, cwd=openscope.folder, env=openscope.environ)
    assert done.returncode == 4
    assert "did you mean event_path?" in done.stdout + done.stderr
