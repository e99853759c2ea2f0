"""The bench rig: each device on its library's own simulation, a real ffmpeg, faults, a validation, and a laser that is off."""

from __future__ import annotations

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import warm

if TYPE_CHECKING:
    from .conftest import Example

pytest.importorskip("serial")
pytest.importorskip("pyvisa_sim")
pytest.importorskip("ophyd_async")

STEPS = ["test_devices_answer", "test_stage", "test_laser_power", "test_record", "test_frames"]


def laser_was_told(log: str) -> list[str]:
    return re.findall(r"devices\.laser told '(OUTP \d)'", log)


def test_real_session(bench: Example) -> None:
    pytest.importorskip("imageio_ffmpeg")
    done = bench.run()
    assert done.outcomes == dict.fromkeys(STEPS, "passed")
    assert done.measured("frames") == pytest.approx(30, abs=1)
    assert laser_was_told(done.log) == ["OUTP 1", "OUTP 0", "OUTP 0"]
    assert "lick_spout told b'VALVE 1\\n'" in done.log
    assert not (bench.folder / "laser_off.log").exists()


def test_dry_run_is_stamped(bench: Example) -> None:
    done = bench.run("--dry-run")
    simulated = ["laser: pyvisa-sim laser.yaml", "lick_spout: scripted peer lick_spout.yaml", "stage: ophyd-async mock mode"]
    assert done.folder.parent.name == "dry_runs"
    assert done.end_state["dry_run"] is True
    assert done.end_state["simulated"] == simulated
    assert all(f"simulated: {line}" in done.log for line in simulated)
    assert all(line in done.output for line in simulated)
    assert done.outcomes["test_record"] == "passed"


#: What each fault does: outcome, exit code, the step that fails ("" for none), and whether post-acquisition runs.
FAULTS = {
    "laser.open=TimeoutError": ("error", 1, "test_devices_answer", False),
    "laser.open=hang": ("error", 1, "test_devices_answer", False),
    "laser.query=OSError:cable out": ("failed", 1, "test_laser_power", False),
    "laser.*=delay:20ms": ("passed", 0, "", True),
    "laser.output=RuntimeError:jammed": ("error", 1, "test_record", True),
    "laser.safe_state=OSError:stuck": ("error", 1, "", True),
    "laser.close=OSError:stuck": ("passed", 0, "", True),
    "lick_spout.check=hang": ("failed", 1, "test_devices_answer", False),
    "lick_spout.query=hang": ("timeout", 1, "test_record", True),
    "stage.move=RuntimeError:axis blocked": ("failed", 1, "test_stage", False),
    "acquisition=exit:3": ("failed", 1, "test_record", True),
    "acquisition=hang": ("timeout", 1, "test_record", True),
    "acquisition=crash": ("failed", 1, "test_record", True),
    "acquisition=crash@0.5s": ("failed", 1, "test_record", True),
    "acquisition=chatty:2000": ("passed", 0, "", True),
}

#: Only what hangs gets a short time: anything else may take as long as a busy machine makes it.
SHORTENED = {
    "laser.open=hang": [("rig.yaml", "    log_io: true", "    open_timeout_s: 0.5\n    log_io: true")],
    "lick_spout.check=hang": [("rig.yaml", "    baud: 115200", "    baud: 115200\n    check_timeout_s: 0.5")],
    "lick_spout.query=hang": [
        ("test_experiment.py", "def test_record(", "@pytest.mark.timeout(2)\ndef test_record("),
        ("rig.yaml", "    baud: 115200", "    baud: 115200\n    safe_state_timeout_s: 0.5"),
    ],
    "acquisition=hang": [("test_experiment.py", "DURATION_S + 8", "1")],
}


def test_the_page_on_endings_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "endings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]*=[^`]*)` \|[^|]*\| (\w+) \| (\d) \| (\S+) \| (yes|no) \|$", page, re.MULTILINE)
    said = {
        fault: (outcome, int(code), "" if step == "-" else step, saved == "yes") for fault, outcome, code, step, saved in rows
    }
    assert said == FAULTS


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_ends_as_the_table_says(bench: Example, fault: str) -> None:
    outcome, code, step, saved = FAULTS[fault]
    for file, text, shorter in SHORTENED.get(fault, []):
        content = (bench.folder / file).read_text(encoding="utf-8")
        assert text in content
        (bench.folder / file).write_text(content.replace(text, shorter, 1), encoding="utf-8")
    done = bench.run("--dry-run", "--inject", fault, code=code)
    assert done.end_state["outcome"] == outcome
    failed = [name for name, result in done.outcomes.items() if result not in ("passed", None)]
    assert failed == ([step] if step else [])
    assert f"injected: {fault}" in done.end_state["simulated"]
    assert f"injected: {fault}" in done.output
    ran = [
        one["name"]
        for one in done.end_state["steps"]
        if "skipped" not in one or not one["skipped"] or "dry run" in one["skipped"]
    ]
    assert ("test_frames" in ran) is saved
    told = laser_was_told(done.log)
    stuck = [name for name in ("output", "safe_state") if fault.startswith(f"laser.{name}=")]
    assert not told or told[-1] == "OUTP 0"
    assert not stuck or "safe_state of laser failed" in "".join(done.end_state["helper_failures"])
    assert "close of laser failed" not in done.output or fault.startswith("laser.close=")
    assert (done.folder / "launcher_metadata" / "debug_state.json").exists() is (outcome != "passed")


def test_wrong_faults_are_named_before_anything_runs(bench: Example) -> None:
    command = [sys.executable, "-m", "pytest", "--rig-config", "rig.yaml", "--dry-run", "--inject", "lasr.open=TimeoutEror"]
    done = warm.run(command, cwd=bench.folder, env=bench.environ)
    assert done.returncode == 4
    assert "did you mean 'laser'" in done.stderr
    assert not (bench.folder / "sessions").exists()


def test_calls_that_no_driver_has_fail_the_dry_run(bench: Example) -> None:
    path = bench.folder / "test_experiment.py"
    source = path.read_text(encoding="utf-8")
    # The first one that fails shall not keep the others from being called.
    for right, wrong in (
        ("@pytest.mark.pre_acquisition\n", "@pytest.mark.pre_acquisition(on_failure='continue')\n"),
        ("laser.query(f", "laser.ask(f"),
        ("stage.move, x_mm=1.5, z_mm=-0.2", "stage.move, x_mm=1.5"),
    ):
        assert right in source
        source = source.replace(right, wrong)
    path.write_text(source, encoding="utf-8")
    done = bench.run("--dry-run", code=1)
    assert "no attribute 'ask'" in done.log
    assert "missing 1 required positional argument: 'z_mm'" in done.log
    assert [step for step, outcome in done.outcomes.items() if outcome == "failed"] == ["test_stage", "test_laser_power"]


def test_laser_is_off_after_a_kill(bench: Example) -> None:
    path = bench.folder / "test_experiment.py"
    source = path.read_text(encoding="utf-8")
    dies = "        import psutil; psutil.Process().kill()\n        camera.wait()"
    path.write_text(source.replace("        camera.wait()", dies), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--rig-config",
        "rig.yaml",
        "--no-input",
        "--subject-id",
        "demo",
        "--user-id",
        "me",
    ]
    done = warm.run(command, cwd=bench.folder, env=bench.environ)
    assert done.returncode == (15 if sys.platform == "win32" else -signal.SIGKILL)
    deadline = time.monotonic() + 120
    while not (bench.folder / "laser_off.log").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "laser switched off" in (bench.folder / "laser_off.log").read_text(encoding="utf-8")
    (folder,) = (bench.folder / "sessions").glob("demo_*")
    state = folder / "launcher_metadata" / "end_state.json"
    while time.monotonic() < deadline and not (state.exists() and json.loads(state.read_text()).get("outcome") == "crashed"):
        time.sleep(0.1)
    assert json.loads(state.read_text())["outcome"] == "crashed"


class TestValidation:
    """What the ready-made checks say of odd rigs stands in tests/plugin; here the whole suite meets real libraries."""

    def results(self, bench: Example) -> dict[str, Any]:
        path = bench.folder / "sessions" / ".state" / "validation.json"
        checks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["checks"]
        return checks

    def test_all_pass_and_are_kept_and_make_the_rig_ready(self, bench: Example) -> None:
        path = bench.folder / "rig.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("on_stale: warn", "on_stale: refuse"), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--rig-config", "rig.yaml", "--no-input", "--subject-id", "demo"]
        refused = warm.run([*command, "--user-id", "me"], cwd=bench.folder, env=bench.environ)
        assert refused.returncode == 4
        assert "devices was never checked" in refused.stderr
        assert not list((bench.folder / "sessions").glob("demo_*"))
        # Processes are the whole computer's, on which other tests kill sessions.
        done = bench.run("--validate-rig", "checks", "-k", "not processes")
        checks = self.results(bench)
        assert {check["status"] for check in checks.values()} <= {"pass", "warn", "skip"}
        assert {"devices[laser]", "devices[lick_spout]", "devices[stage]", "disk.fsync", "test_laser_power"} <= set(checks)
        assert checks["disk.write_speed"]["unit"] == "MB/s"
        assert checks["test_laser_power"]["expires_s"] == 7 * 86400
        assert "devices[laser]: pass: says 'BENCH,LASER,0,1.0'" in done.output
        ready = bench.run("-k", "devices_answer")
        assert ready.end_state["outcome"] == "passed"
        assert "the rig is not ready" not in ready.log

    def test_a_device_that_never_answers_fails_within_its_timeout(self, bench: Example) -> None:
        bench.folder.joinpath("bench_dead.py").write_text(
            "import time\nclass Dead:\n    def check(self): time.sleep(3600)\n", encoding="utf-8"
        )
        path = bench.folder / "rig.yaml"
        dead = 'devices:\n  dead: {driver: "bench_dead:Dead", check_timeout_s: 0.3}\n'
        path.write_text(path.read_text(encoding="utf-8").replace("devices:\n", dead, 1), encoding="utf-8")
        bench.run("--validate-rig", "-k", "dead", code=1)
        assert self.results(bench)["devices[dead]"]["message"] == "TimeoutError: dead.check did not return within 0.3 s"

    def test_a_dry_run_opens_the_stand_ins_and_says_nothing_about_the_rig(self, bench: Example) -> None:
        done = bench.run("--validate-rig", "--dry-run", "-k", "test_device")
        assert "3 checks: 3 pass" in done.output
        assert not (bench.folder / "sessions" / ".state" / "validation.json").exists()


def rehearse(bench: Example, *faults: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "rehearse.py", *faults]
    return subprocess.run(command, cwd=bench.folder, env=bench.environ, capture_output=True, text=True)


def test_rehearsal_of_single_faults(bench: Example, capsys: pytest.CaptureFixture[str]) -> None:
    done = rehearse(bench, "acquisition=exit:3")
    assert (done.returncode, done.stdout.split()) == (0, ["acquisition=exit:3", "failed"])
    assert "not in WORST_DAY: laser.on" in rehearse(bench, "laser.on").stderr
    # The same outcome where another one is expected: no second session is needed to say so.
    script = runpy.run_path(str(bench.folder / "rehearse.py"))
    script["WORST_DAY"][:] = [
        (fault, "passed" if fault == "acquisition=exit:3" else said) for fault, said in script["WORST_DAY"]
    ]
    script["main"].__globals__["rehearse"] = lambda fault: "failed"
    assert script["main"](["acquisition=exit:3"]) == 1
    assert capsys.readouterr().out.split() == ["acquisition=exit:3", "failed", "expected:", "passed"]


@pytest.mark.stress
def test_the_whole_rehearsal(bench: Example) -> None:
    done = rehearse(bench)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 10
