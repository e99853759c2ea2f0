"""The minimal rig, run as its README says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Example


def test_as_tests(minimal: Example) -> None:
    done = minimal.run("--output-root", "sessions")
    assert done.folder.parent == minimal.folder / "sessions"
    assert done.end_state["outcome"] == "passed"
    assert list(done.outcomes) == [
        "test_disk_space",
        "test_lamp_power",
        "test_animal_weight",
        "test_stimulus",
        "test_trials_are_complete",
        "test_say_how_it_went",
    ]
    assert done.measured("trials") == 5
    assert done.measured("lamp_power") == 5.0
    assert done.end_state["attachments"] == ["trials.csv"]
    assert done.end_state["notes"] == ["demo: passed, 0 failures"]
    assert (done.folder / "trials.csv").is_file()
    for line in ("trial 5 of 5", "lamp is at 5 mW", "lamp is off", "lamp on COM7 is closed"):
        assert line in done.log


def test_as_a_parameter_file(minimal: Example) -> None:
    done = minimal.run("day1.json", "-v")
    assert "day1.json::pre_acquisition::disk_space_check PASSED" in done.output
    assert list(done.outcomes.values()) == ["passed"] * 5
    assert "5 trials of 5" in done.log
    assert (done.folder / "experiment_notes.txt").is_file()
    processed = json.loads((done.folder / "launcher_metadata" / "processed_parameters.json").read_text(encoding="utf-8"))
    assert processed["script_arguments"][:2] == ["--trials", "5"] or processed["script_arguments"][1] == 5


def test_values_of_the_file_and_phases_of_the_tests(minimal: Example) -> None:
    done = minimal.run("--params", "day1.json", "--param", "trials=2", ".")
    assert done.measured("trials") == 2


def test_dry_runs_touch_nothing(minimal: Example) -> None:
    for arguments in ([], ["day1.json"]):
        done = minimal.run("--dry-run", *arguments)
        assert done.end_state["dry_run"] is True
        assert done.end_state["outcome"] == "passed"
        assert "dry_runs" in done.folder.parts
        assert "stimulus.py" in done.log  # the command that would have run
        assert not (done.folder / "trials.csv").exists()
        assert not (done.folder / "experiment_notes.txt").exists()


def test_a_lamp_that_is_too_weak_holds_the_acquisition_back(minimal: Example) -> None:
    devices = minimal.folder / "my_devices.py"
    devices.write_text(
        devices.read_text(encoding="utf-8").replace("return self.power_mw", "return 0.5 * self.power_mw"), encoding="utf-8"
    )
    done = minimal.run(code=1)
    assert done.end_state["outcome"] == "failed"
    assert done.outcomes["test_stimulus"] is None
    assert "lamp_power = 2.5 mW is outside [4.5, 5.5]" in done.log
    assert "lamp is off" in done.log
    debug = json.loads((done.folder / "launcher_metadata" / "debug_state.json").read_text(encoding="utf-8"))
    assert "lamp_power" in debug["exception"]
    assert not (done.folder / "trials.csv").exists()


def test_a_lost_trial_fails_the_parameter_file(minimal: Example) -> None:
    done = minimal.run("day1.json", "--param", "script_arguments.1=4", code=1)
    assert done.outcomes == {
        "disk_space_check": "passed",
        "experiment_notes_editor": "passed",
        "stimulus": "passed",
        "count_trials": "failed",
        "experiment_notes_finalize": "passed",
    }
    assert "the module returned False" in done.log
