"""A session whose parameter file has several acquisitions at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_acquisition_together import RECORDER, all_up, closed_in_order, when


@pytest.fixture
def lab(bench: Any) -> Any:
    recorder = bench.write("recorder.py", RECORDER)
    stimulus = bench.write("stimulus.py", when(all_up(2), "sys.exit(int(sys.argv[1]))")[-1])
    bench.parameters = lambda code: bench.write(
        "day1.json",
        json.dumps(
            {
                "launcher": "python",
                "stop_graceful_s": 5,
                "acquisitions": [
                    {"name": "camera", "script_path": str(recorder), "script_arguments": ["camera"], "background": True},
                    {"name": "ephys", "script_path": str(recorder), "script_arguments": ["ephys"], "background": True},
                    {"name": "stimulus", "script_path": str(stimulus), "script_arguments": [code]},
                ],
                "acquisition_stop_order": ["camera"],
            }
        ),
    )
    return bench


def _diary(lab: Any) -> list[str]:
    return (lab.folder / "diary").read_text().splitlines()


def closed_if_asked(lab: Any) -> bool:
    """Programs are asked in their order, but for Windows, where the recorder does not hear CTRL_BREAK and is ended."""
    return sys.platform == "win32" or _diary(lab)[2:] == closed_in_order("camera", "ephys")


def test_they_run_at_once_and_all_are_on_record(lab: Any) -> None:
    lab.parameters("0")
    assert lab.run_here("day1.json").ret == 0
    assert [one["name"] for one in lab.end["acquisitions"]] == ["stimulus", "camera", "ephys"]
    assert closed_if_asked(lab), _diary(lab)
    assert {"acquisition.camera.stdout", "acquisition.ephys.stdout"} <= {entry.logger for entry in lab.log}


def test_the_failure_of_one_stops_all(lab: Any) -> None:
    lab.parameters("3")
    result = lab.run_here("day1.json")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*acquisition 'stimulus' ended with exit code 3*"])
    assert closed_if_asked(lab), _diary(lab)
    assert lab.end["outcome"] == "failed"


def test_a_dry_run_names_them_all(lab: Any) -> None:
    lab.parameters("0")
    assert lab.run_here("day1.json", "--dry-run").ret == 0
    assert [one["name"] for one in lab.end["acquisitions"]] == ["stimulus", "camera", "ephys"]
    assert not (lab.folder / "diary").exists()


def test_a_missing_script_of_one_stops_the_session(lab: Any) -> None:
    lab.parameters("0")
    (lab.path / "stimulus.py").unlink()
    result = lab.run_here("day1.json")
    assert result.ret == 4
    assert "acquisitions.2.script_path: there is no stimulus.py" in result.stderr.str() + result.stdout.str()
