"""A rig that is not ready holds its experiments back, and what changed since its last good session is told."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_openscope.system import command_line

if TYPE_CHECKING:
    from .conftest import Rig

RIG = """
rig_id: bench
output_root_folder: sessions
state_directory: state
readiness: {require: [clock, test_water], max_age: 24h}
"""
STEP = "def test_run(): pass"


@pytest.fixture
def lab(bench: Rig) -> Rig:
    bench.write("rig.yaml", RIG)
    bench.steps(STEP)
    return bench


def keep(lab: Rig, *, age_s: float = 60, rig_id: str = "bench", **results: Any) -> None:
    """Write ``validation.json``; a result is a status, or a mapping."""
    at = (datetime.now().astimezone() - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    checks = {
        check: {"check": check, "at": at, "message": "because", **(result if isinstance(result, dict) else {"status": result})}
        for check, result in results.items()
    }
    lab.write("state/validation.json", json.dumps({"rig_id": rig_id, "checks": checks}))


def refused(lab: Rig, *words: str) -> None:
    result = lab.run_here()
    assert result.ret == 4
    message = result.stderr.str()
    assert "the rig is not ready: " in message
    assert f"-> run: {command_line(['pytest', '--rig-config', str(lab.path / 'rig.yaml'), '--validate-rig'])}" in message
    for word in words:
        assert word in message
    assert not (lab.path / "sessions").exists()


def test_ready(lab: Rig) -> None:
    keep(lab, clock="warn", test_water="pass")
    assert lab.run_here().ret == 0
    assert lab.end["readiness_override"] is None


def test_never_checked(lab: Rig) -> None:
    refused(lab, "clock was never checked; test_water was never checked")


def test_failed_and_stale(lab: Rig) -> None:
    keep(lab, age_s=25 * 3600, clock="pass", test_water={"status": "fail", "message": "dry", "file": "own checks.py"})
    refused(
        lab,
        "clock was checked 25 h ago, longer than 24 h; test_water failed 25 h ago: dry",
        command_line(["--validate-rig", "own checks.py"]),
    )


def test_own_expiry_outlives_the_rigs_age(lab: Rig) -> None:
    keep(lab, age_s=48 * 3600, clock={"status": "pass", "expires_s": 7 * 86400}, test_water={"status": "pass", "expires_s": 60})
    refused(lab, "not ready: test_water was checked 2 d ago, longer than 60 s ->")


def test_clock_set_back(lab: Rig) -> None:
    keep(lab, age_s=-3 * 3600, clock="pass", test_water="pass")
    refused(lab, "clock was checked 3 h in the future (was the clock set back?)")


def test_results_of_another_rig_do_not_count(lab: Rig) -> None:
    keep(lab, rig_id="the other one", clock="pass", test_water="pass")
    refused(lab, "clock was never checked")


@pytest.mark.parametrize("content", ["{", "\udcff" + "[" * 9999])
def test_damaged_results_are_no_results(lab: Rig, content: str) -> None:
    (lab.path / "state").mkdir()
    (lab.path / "state" / "validation.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    refused(lab, "clock was never checked")


def test_a_dry_run_neither_needs_nor_makes_it_ready(lab: Rig) -> None:
    assert lab.run_here("--dry-run").ret == 0
    assert lab.run_here("--dry-run", "--validate-rig").ret == 0
    assert not (lab.path / "state" / "validation.json").exists()


def test_warn_only(lab: Rig) -> None:
    lab.write("rig.yaml", RIG.replace("24h}", "24h, on_stale: warn}"))
    result = lab.run_here()
    assert result.ret == 0
    output = result.stdout.str()
    assert output.index("the rig is not ready: clock was never checked") < output.index("test_experiment.py ")
    assert "WARNING   pytest_openscope.session the rig is not ready" in lab.messages


def test_the_block_may_be_made_of_placeholders(lab: Rig) -> None:
    lab.write("rig.yaml", RIG.replace("24h", '"{rig_param:oldest}"') + "values: {oldest: 2h}\n")
    keep(lab, age_s=3 * 3600, clock="pass", test_water="pass")
    refused(lab, "longer than 2 h")
    lab.write("rig.yaml", RIG.replace("24h", '"{rig_param:oldest}"') + "values: {oldest: ages}\n")
    result = lab.run_here()
    assert result.ret == 4
    assert "readiness.max_age" in result.stderr.str()


def test_override_is_kept_with_who_gave_it(lab: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "lab-pc")
    result = lab.run_here("--override-readiness", "animal is waiting")
    assert result.ret == 0
    assert "readiness overridden by ada (system user lab-pc): 'animal is waiting'" in lab.messages
    assert "readiness overridden by ada" in result.stdout.str()
    kept = lab.end["readiness_override"]
    assert (kept["reason"], kept["user_id"], kept["system_user"]) == ("animal is waiting", "ada", "lab-pc")
    assert kept["problems"] == [
        "clock was never checked",
        "test_water was never checked (name the file of a check of your own behind --validate-rig)",
    ]
    assert kept["host"]
    assert kept["at"]


def test_override_survives_the_death_of_the_session(lab: Rig) -> None:
    lab.steps("def test_run(): kill_me()")
    lab.run("--override-readiness", "animal is waiting")
    end = lab.wait_for(lambda: lab.end if lab.end.get("outcome") == "crashed" else None)
    assert end["readiness_override"]["reason"] == "animal is waiting"


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_empty_reason_is_none(lab: Rig, reason: str) -> None:
    result = lab.run_here(f"--override-readiness={reason}")
    assert result.ret == 4
    assert "--override-readiness: the reason is empty" in result.stderr.str()
    assert not (lab.path / "sessions").exists()


def test_an_override_that_was_not_needed(lab: Rig) -> None:
    keep(lab, clock="pass", test_water="pass")
    assert lab.run_here("--override-readiness", "just in case").ret == 0
    assert lab.end["readiness_override"] is None
    assert "was not needed: the rig is ready" in lab.messages


DRIVER = """
import os
class Laser:
    def __init__(self, power_mw=5.0):
        self.power_mw = power_mw
    def read_state(self):
        return {"power_mw": self.power_mw, "shutter": os.environ.get("SHUTTER", "shut")}
"""


@pytest.fixture
def laser(bench: Rig) -> Rig:
    bench.write(
        "rig.yaml",
        "rig_id: bench\noutput_root_folder: sessions\nstate_directory: state\nvalues: {gain: 1}\n"
        "devices: {laser: {driver: 'lab_laser:Laser', params: {power_mw: 5.0}}}\n",
    )
    bench.write("lab_laser.py", DRIVER)
    bench.write("site/lab_tool-1.0.dist-info/METADATA", "")
    bench.steps("def test_run(devices): devices['laser']\ndef test_more(): assert not os.environ.get('BAD')")
    return bench


def newest(laser: Rig) -> Path:
    return max(laser.folders, key=lambda folder: folder.stat().st_mtime_ns) / "launcher_metadata"


def changes(laser: Rig) -> Any:
    return json.loads((newest(laser) / "changes_since_last_good.json").read_text(encoding="utf-8"))["changes"]


def test_what_changed_is_told_and_kept(laser: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    site = os.pathsep.join([str(laser.path / "site"), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", site)
    assert "changed since" not in laser.run().stdout.str()
    assert not (newest(laser) / "changes_since_last_good.json").exists()
    assert laser.run().ret == 0
    assert changes(laser) == {}

    laser.write("rig.yaml", (laser.path / "rig.yaml").read_text(encoding="utf-8").replace("gain: 1", "gain: 2"))
    laser.write("lab_laser.py", DRIVER + "\n")
    (laser.path / "site" / "lab_tool-1.0.dist-info").rename(laser.path / "site" / "lab_tool-1.1.dist-info")
    monkeypatch.setenv("SHUTTER", "open")
    monkeypatch.setenv("BAD", "1")
    for _ in range(2):  # the first one fails: what it saw does not become the rig's good state
        result = laser.run()
        assert result.ret == 1
        found = changes(laser)
        assert found["configuration"] == {"values.gain": {"before": 1, "now": 2}}
        assert found["packages"] == {"lab-tool": {"before": "1.0", "now": "1.1"}}
        assert found["device_states"] == {"laser.shutter": {"before": "shut", "now": "open"}}
        assert set(found["drivers"]) == {"laser"}
        output = result.stdout.str()
        first_step = output.index("test_experiment.py ")
        for line in (
            "1 package changed: lab-tool 1.0 -> 1.1",
            "rig file: values.gain: 1 -> 2",
            "driver of laser: lab_laser:Laser ",
        ):
            assert output.index(line) < first_step, line
        assert output.index("state of laser.shutter: shut -> open") > first_step
        log = (newest(laser) / "launcher.log").read_text(encoding="utf-8")
        assert "changed since the last good session: state of laser.shutter: shut -> open" in log

    monkeypatch.delenv("BAD")
    assert laser.run().ret == 0
    assert laser.run().ret == 0
    assert changes(laser) == {}


def test_dry_runs_and_validations_neither_compare_nor_count(laser: Rig) -> None:
    assert laser.run_here("--dry-run").ret == 0
    # Processes are the whole computer's, on which other tests kill sessions.
    assert laser.run_here("--validate-rig", "-k", "not processes").ret == 0
    assert not (laser.path / "state" / "last_good.json").exists()


@pytest.mark.parametrize("content", ["{", '{"rig_id": "other", "sections": {}}'])
def test_a_damaged_memory_is_none(laser: Rig, content: str) -> None:
    laser.write("state/last_good.json", content)
    assert laser.run_here().ret == 0
    assert not (newest(laser) / "changes_since_last_good.json").exists()
    assert json.loads((laser.path / "state" / "last_good.json").read_text(encoding="utf-8"))["sections"]["configuration"]


def test_a_device_whose_state_cannot_be_read_changes_nothing(laser: Rig) -> None:
    assert laser.run_here().ret == 0
    laser.write("lab_laser.py", DRIVER.replace("return {", "raise OSError({").replace('"shut")}', '"shut")})'))
    assert laser.run_here().ret == 0
    assert "device_states" not in changes(laser)
    laser.write("lab_laser.py", DRIVER)
    assert laser.run_here().ret == 0
    assert "device_states" not in changes(laser)
