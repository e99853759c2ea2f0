"""Whole sessions with ``launcher: bonsai``, run by a stand-in of Bonsai."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from bonsai_kit import SOUND, StandIn, subject, timer, workflow, writer

OVERWRITES = workflow(timer(), writer("day.csv", "None", overwrite=True), edges=[(0, 1)])


@pytest.fixture
def lab(bench: Any) -> Any:
    bench.bonsai = StandIn(bench.path / "bonsai")
    bench.write("flows/oddball.bonsai", SOUND)
    bench.parameters = lambda **more: bench.write(
        "day1.json",
        json.dumps(
            {
                "launcher": "bonsai",
                "bonsai_exe_path": str(bench.bonsai.exe),
                "script_path": str(bench.path / "flows" / "oddball.bonsai"),
                "script_parameters": {"events_path": "{subject_id}\\events.csv"},
                **more,
            }
        ),
    )
    bench.parameters()
    return bench


def test_a_real_session(lab: Any) -> None:
    result = lab.run_here("day1.json")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*notice*")
    assert (lab.folder / "mouse7" / "events.csv").stat().st_size
    (facts,) = lab.end["acquisitions"]
    assert (facts["name"], facts["returncode"]) == ("oddball", 0)
    provenance = lab.metadata("bonsai_provenance.json")
    assert provenance["outputs"][0]["files"] == {str(lab.folder / "mouse7" / "events.csv"): 10}
    assert any(entry.message == "workflow of 8 nodes runs" for entry in lab.log)


def test_a_fatal_error_is_the_failure_of_the_session(lab: Any) -> None:
    lab.bonsai.faults("fatal")
    result = lab.run_here("day1.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fatal error*No camera found*"])
    assert lab.end["outcome"] == "failed"
    assert len(lab.bonsai.calls) == 1


def test_a_dry_run_refuses_a_workflow_that_loses_data(lab: Any) -> None:
    lab.write("flows/oddball.bonsai", OVERWRITES)
    lab.parameters(script_parameters={"Nothing": 1})
    result = lab.run_here("day1.json", "--dry-run")
    assert result.ret == 4
    told = result.stdout.str() + result.stderr.str()
    assert "2 mistakes, nothing was started" in told
    assert "day1.json: script_path: SILENT_OVERWRITE: CsvWriter 'day.csv' #1" in told
    assert "day1.json: script_parameters: -p Nothing: Bonsai refuses it" in told
    assert not lab.folders


def test_a_real_session_is_warned_and_runs(lab: Any) -> None:
    lab.write("flows/oddball.bonsai", OVERWRITES)
    lab.parameters(script_parameters={}, bonsai_check_outputs=False)
    result = lab.run_here("day1.json")
    assert result.ret == 0
    assert "SILENT_OVERWRITE" in result.stdout.str() + result.stderr.str()
    assert any(entry.level == "WARNING" and "SILENT_OVERWRITE" in entry.message for entry in lab.log)


def test_a_dry_run_of_a_sound_workflow(lab: Any) -> None:
    lab.bonsai.exe.unlink()
    assert lab.run_here("day1.json", "--dry-run", "--strict").ret == 0
    assert not lab.bonsai.calls
    assert lab.metadata("bonsai_provenance.json")["fingerprint"]
    assert "acquisition" in lab.end["simulated"]


@pytest.mark.parametrize(
    ("text", "code", "status", "words"),
    [
        (SOUND, 0, "pass", ""),
        (OVERWRITES, 1, "fail", "SILENT_OVERWRITE"),
        (workflow(timer(), writer("a.csv", disabled=True), edges=[(0, 1)]), 0, "warn", "DISABLED_WRITER"),
        (workflow(subject("SubscribeSubject", "Nobody")), 1, "fail", "DANGLING_SUBJECT"),
    ],
    ids=["sound", "overwrites", "disabled", "dangling"],
)
def test_a_validation_of_the_rig_tells_the_same(lab: Any, text: str, code: int, status: str, words: str) -> None:
    lab.write("flows/oddball.bonsai", text)
    lab.parameters(**({} if text is SOUND else {"script_parameters": {}}))
    run = lab.run_here(
        "--rig-config", "rig.yaml", "--no-input", "--params", "day1.json", "--validate-rig", ids=False, rig=False
    )
    assert run.ret == code
    checks = json.loads((lab.path / "state" / "validation.json").read_text(encoding="utf-8"))["checks"]
    assert checks["acquisition[bonsai]"]["status"] == status
    assert words in checks["acquisition[bonsai]"]["message"]
    assert not lab.bonsai.calls
