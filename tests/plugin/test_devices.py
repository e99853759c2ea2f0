"""Devices in whole sessions: opened as declared, off in every ending, simulated and made to fail in dry runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from share_kit import processes_of
from step_kit import PACE

#: Drivers that write down what is done to them; ``laser_off.py`` is what the sidecar runs.
LAB = '''
import os, time

def note(text):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "hardware.txt"), "a") as file:
        file.write(text + "\\n")

class Shutter:
    """On a line that is always there."""
    name = "shutter"
    def __init__(self, fail: str = "", hang_s: float = 0):
        self.fail, self.hang_s = fail, hang_s
    def _do(self, what):
        note(f"{self.name} {what}")
        if what in self.fail.split():
            raise OSError(f"{what} is not possible")
        if f"hang-{what}" in self.fail.split():
            time.sleep(self.hang_s)
    def open(self): self._do("opens")
    def close(self): self._do("closed")
    def check(self) -> str: return "here"
    def safe_state(self): self._do("safe")

class Laser(Shutter):
    """Dangerous."""
    name = "laser"
    def __init__(self, power_mw: float, fail: str = "", hang_s: float = 0):
        super().__init__(fail, hang_s)
        self.power_mw = power_mw + 0.0
        self.is_on = False
    def output(self, on: bool) -> None:
        self.is_on = on
        self._do("on" if on else "off")
    def read_state(self): return {"is_on": self.is_on, "power_mw": self.power_mw}
    def temperature_c(self) -> float: raise OSError("no hardware here")
    def frames(self, count: int) -> int: raise OSError("no hardware here")

class Camera:
    """Ships its own mock."""
    def __init__(self, serial): raise OSError("no hardware here")
    def grab(self, frames: int) -> int: ...

class MockCamera:
    def __init__(self, serial): ...
    def grab(self, frames): return frames

class MyShutter:
    def open(self): ...
    def check(self): return "simulated by the lab"
'''
RIG = """
rig_id: bench
output_root_folder: sessions
state_directory: state
values: {laser_power_mw: 5}
devices:
  shutter: {driver: "lab_hardware:Shutter", open: eager}
  laser:
    driver: "lab_hardware:Laser"
    params: {power_mw: "{laser_power_mw}"}
    log_io: true
    safe_state_command: [PYTHON, laser_off.py]
"""
EXPERIMENT = """
from lab_hardware import note

@pytest.mark.pre_acquisition
def test_check(devices):
    note("pre-acquisition")
    assert devices.opened() == ["shutter"]

def watched(experiment):
    # Until the sidecar watches this process: how one died before cannot be known once its parent has taken the status.
    while not (experiment.session_folder / "launcher_metadata/resource_usage.json").exists():
        time.sleep(0.01)

def test_acquire(devices, experiment, request):
    devices["laser"].output(True)
    BODY

@pytest.mark.post_acquisition
def test_save():
    note("post-acquisition")
"""


@pytest.fixture
def lab(bench: Any) -> Any:
    bench.write("lab_hardware.py", LAB)
    bench.write("laser_off.py", "from lab_hardware import note\nnote('laser off by its command')\n")
    bench.write("rig.yaml", RIG.replace("PYTHON", json.dumps(sys.executable)))
    return bench


def hardware(lab: Any) -> list[str]:
    """Return what was done to the hardware, in order."""
    path = lab.path / "hardware.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def devices_in(lab: Any, section: str) -> None:
    head = RIG.partition("devices:")[0]
    lab.write("rig.yaml", f"{head}devices:\n{section}")


IN_ORDER = ["shutter opens", "pre-acquisition", "laser opens", "laser on"]
AT_THE_END = ["laser safe", "shutter safe", "laser closed", "shutter closed"]
DIES = "watched(experiment); "
#: What the acquisition step does once the laser is on; the outcome; whether Python sees the end; whether post-acquisition runs.
ENDINGS = {
    "passed": ("pass", "passed", True, True),
    "failed": ("assert False", "failed", True, True),
    "error": ("request.addfinalizer(lambda: 1 / 0)", "error", True, True),
    "timeout": ("time.sleep(90)", "timeout", True, True),
    "Ctrl-C": ("signal_me(); time.sleep(30)", "interrupted", True, True),
    "Ctrl-C twice": (
        "try:\n        signal_me(); time.sleep(30)\n    finally:\n        signal_me()",
        "interrupted",
        True,
        False,
    ),
    "sys.exit": ("sys.exit(3)", "failed", True, True),
    "os._exit": (f"{DIES}os._exit(7)", "crashed", False, False),
    "kill -9": (f"{DIES}kill_me()", "crashed", False, False),
    "segmentation fault": (f"{DIES}read_null()", "crashed", False, False),
    "hang in C": (f"{DIES}hang(90)", "timeout", False, False),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_laser_is_off_at_the_end(lab: Any, ending: str) -> None:
    body, outcome, seen, saved = ENDINGS[ending]
    lab.steps(EXPERIMENT.replace("BODY", body))
    flags = ("--timeout=1", "--param", f"grace_s={PACE}") if outcome == "timeout" else ()
    with open(lab.path / "output.txt", "wb") as output:
        process = lab.start(*flags, stdout=output, stderr=output)
        process.wait(100)
    end = lab.wait_for(lambda: lab.end["outcome"] is not None and lab.end)
    assert end["outcome"] == outcome, (lab.path / "output.txt").read_text(errors="replace")
    if seen:
        assert hardware(lab) == IN_ORDER + (["post-acquisition"] if saved else []) + AT_THE_END
    else:
        assert hardware(lab) == [*IN_ORDER, "laser off by its command"]
    laser = {"driver": "lab_hardware:Laser", "dry_run": False, "simulated": None}
    assert end["devices"]["laser"] == laser
    log = lab.messages
    assert "test_acquire pytest_openscope.devices.laser output(True) -> None" in log
    assert "pytest_openscope.devices.shutter" not in log
    if outcome != "passed" and seen:
        assert lab.debug["launcher_state"]["devices"]["laser"] == {"is_on": True, "power_mw": 5.0}


class TestAfterAKill:
    """The sidecar has only the command; the people at the rig have only the next session."""

    KILLED = EXPERIMENT.replace("BODY", f"{DIES}kill_me()")
    NEXT = "def test_nothing(): pass\n"

    def kill(self, lab: Any, command: str) -> Path:
        lab.write("rig.yaml", RIG.replace("[PYTHON, laser_off.py]", command))
        lab.steps(self.KILLED)
        lab.run()
        lab.wait_for(lambda: lab.end["outcome"] == "crashed")
        lab.wait_for(lambda: list((lab.path / "state" / "crashed").glob("*.json")))
        folder: Path = lab.folder
        return folder

    def test_python_is_the_sessions_interpreter(self, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        stranger = lab.write("bin/python", "#!/bin/sh\nexit 9\n")
        stranger.chmod(0o755)
        monkeypatch.setenv("PATH", str(stranger.parent), prepend=os.pathsep)
        first = self.kill(lab, "[python, laser_off.py]")
        assert hardware(lab)[-1] == "laser off by its command"
        lab.steps(self.NEXT)
        assert f"session {first.name} crashed: see {first}\n" in lab.run_here().stdout.str()

    def test_the_next_session_tells_once_what_may_not_be_safe(self, lab: Any) -> None:
        first = self.kill(lab, "[python, -c, raise SystemExit(3)]")
        text = f"session {first.name} crashed; laser may not be safe: see {first / 'launcher_metadata' / 'safe_state.log'}"
        lab.steps(self.NEXT)
        assert lab.run_here("--dry-run").stdout.str().count(text) == 0
        result = lab.run_here()
        assert result.ret == 0
        assert result.stdout.str().count(text) == 1
        (second,) = (one for one in lab.folders if one.parent.name == "sessions" and one != first)
        assert text in (second / "launcher_metadata/launcher.log").read_text(encoding="utf-8")
        assert text not in lab.run_here().stdout.str()


def test_what_devices_log_at_the_end_belongs_to_post_acquisition(lab: Any) -> None:
    code = "import logging\nlog = logging.getLogger('lab.stage')\nclass Stage:\n    def safe_state(self): log.info('homing')\n"
    lab.write("lab_homing.py", code + "    def close(self): log.info('closing')\n")
    devices_in(lab, "  stage: {driver: 'lab_homing:Stage'}\n")
    lab.steps("def test_acquire(devices): devices['stage']\n")
    assert lab.run_here().ret == 0
    assert [(one.phase, one.message) for one in lab.log if one.logger == "lab.stage"] == [
        ("post_acquisition", "homing"),
        ("post_acquisition", "closing"),
    ]


def test_a_validation_looks_for_the_program_of_a_safe_state_command(lab: Any) -> None:
    section = '  laser: {driver: "lab_hardware:Laser", params: {power_mw: 1}, safe_state_command: [COMMAND]}\n'
    script = str(lab.path / "no_such_script.py")
    for command, missing in (
        ("no-such-program", "no-such-program"),
        ("./off", str(lab.path / "off")),
        ("python, -u, no_such_script.py", script),
        ("python", ""),
    ):
        devices_in(lab, section.replace("COMMAND", command))
        if missing:
            # A session does not begin: nobody could make the device safe once its process has died.
            refused = lab.run_here("test_experiment.py", *(["--dry-run"] if missing == script else []))
            assert (refused.ret, lab.folders) == (4, [])
            what = "script" if missing == script else "program"
            told = refused.stderr.str()
            assert f"rig.yaml: devices.laser.safe_state_command: there is no {what} {missing!r} -> " in told
        printed = lab.run_here("--validate-rig", "-k", "test_device").stdout.str()
        assert bool(hardware(lab)) is not bool(missing)
        assert ("safe_state_command cannot be run" in printed) is bool(missing)
        assert f"{missing!r}; the device was not opened" in printed or not missing
        lab.wait_for(lambda: not processes_of(lab.path))  # a sidecar that cannot read the journal's end keeps the rig
        shutil.rmtree(lab.path / "sessions", ignore_errors=True)


def test_a_comparison_that_failed_leaves_the_last_good_session(lab: Any) -> None:
    lab.steps("def test_acquire(devices): devices['laser']\n")
    assert lab.run().ret == 0
    path = lab.path / "state" / "last_good.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    assert before["sections"]["configuration"]
    broken = "def broken(): raise OSError('a package without metadata')\nrig.installed_versions = broken\n"
    lab.write("conftest.py", f"from pytest_openscope.session import rig\n{broken}")
    result = lab.run()
    assert result.ret == 0
    assert "helper failed: comparing the rig with its last good session" in result.stdout.str()
    assert json.loads(path.read_text(encoding="utf-8")) == before


class TestOpening:
    def test_one_error_lists_every_device_that_did_not_open(self, lab: Any) -> None:
        devices_in(
            lab,
            """
  good: {driver: "lab_hardware:Shutter", open: eager}
  bad: {driver: "lab_hardware:Shutter", params: {fail: opens}, open: eager}
  slow: {driver: "lab_hardware:Laser", params: {power_mw: 1, fail: hang-opens, hang_s: 600}, open: eager, open_timeout_s: 0.3}
  away: {driver: serial, port: "/dev/no_such_port", open: eager}
  late: {driver: "lab_hardware:Shutter", params: {fail: opens}}
""",
        )
        lab.steps(
            "@pytest.mark.pre_acquisition\ndef test_check(devices): devices['good']\n"
            "def test_acquire(): pass\n@pytest.mark.post_acquisition\ndef test_save(): pass\n"
        )
        started = time.monotonic()
        result = lab.run()
        assert time.monotonic() - started < 100
        assert result.ret == 1
        assert lab.outcomes()["test_check"] == "error"
        assert lab.outcomes()["test_acquire"].startswith("skipped: ")
        message = lab.debug["failure"]["message"]
        lines = message.splitlines()
        assert lines[0] == "3 devices did not open: bad, slow, away"
        assert f"first failure: pre_acquisition step test_check: {lines[0]}" in result.stdout.str()
        assert "bad (lab_hardware:Shutter): OSError: opens is not possible" in lines[1]
        assert "slow (lab_hardware:Laser): TimeoutError: slow.open did not return within 0.3 s" in lines[3]
        assert "away (serial): SerialException" in lines[5]
        assert all(line.strip().startswith("-> ") for line in lines[2::2])
        assert "longer open_timeout_s" in lines[4]
        assert "is it plugged in" in lines[6]
        assert hardware(lab)[-2:] == ["shutter safe", "shutter closed"]

    def test_the_summary_says_why_one_did_not_open(self, lab: Any) -> None:
        devices_in(lab, '  bad: {driver: "lab_hardware:Shutter", params: {fail: opens}}\n')
        lab.steps("def test_acquire(devices): devices['bad']\n")
        printed = lab.run_here().stdout.str()
        why = "OSError: opens is not possible (in lab_hardware.py:16)"
        assert f"test_acquire: bad did not open (lab_hardware:Shutter): {why}\n" in printed
        assert lab.debug["failure"]["message"].splitlines()[1].strip().startswith("-> check its power")

    def test_a_device_that_nobody_asks_for_is_not_touched(self, lab: Any) -> None:
        devices_in(lab, '  shutter: {driver: "lab_hardware:Shutter"}\n  laser: {driver: serial, port: "/dev/no_such_port"}\n')
        lab.steps(
            "def test_acquire(devices):\n    assert list(devices) == ['shutter', 'laser']\n"
            "    assert not os.path.exists('hardware.txt')\n    assert devices.check('shutter') == 'here'\n"
        )
        assert lab.run_here().ret == 0
        assert hardware(lab) == ["shutter opens", "shutter safe", "shutter closed"]

    def test_one_that_hangs_at_the_end_holds_up_nobody(self, lab: Any) -> None:
        quick = "safe_state_timeout_s: 0.3, close_timeout_s: 0.3"
        devices_in(
            lab,
            f"""
  shutter: {{driver: "lab_hardware:Shutter"}}
  laser: {{driver: "lab_hardware:Laser", params: {{power_mw: 1, fail: hang-safe hang-closed, hang_s: 600}}, {quick}}}
""",
        )
        lab.steps("def test_acquire(devices):\n    devices['shutter'], devices['laser']\n")
        started = time.monotonic()
        result = lab.run()
        assert time.monotonic() - started < 100
        assert hardware(lab)[2:] == AT_THE_END
        problems = "\n".join(lab.end["helper_failures"])
        assert "safe_state of laser failed: TimeoutError: laser.safe_state did not return within 0.3 s" in problems
        assert "close of laser failed" in problems
        assert "safe_state of laser failed" in result.stdout.str()
        assert (result.ret, lab.end["outcome"]) == (1, "error")
        assert lab.debug["failure"]["message"] == "laser may not be safe: its safe_state failed"


DRY_RUN = """
  given: {driver: "lab_hardware:Shutter", mock: "lab_hardware:MyShutter", open: eager}
  shipped: {driver: "lab_hardware:Camera", params: {serial: "2210"}}
  helper: {driver: subprocess, command: [no-such-program], mock: {dialogues: [{q: "dose 5", r: OK}]}}
  cooler: {driver: http, url: "http://10.0.0.1", timeout_s: "{laser_power_mw}"}
  laser:
    driver: "lab_hardware:Laser"
    params: {power_mw: 5}
    returns:
      temperature_c: 36.5
      frames: [1, 2, {raise: "TimeoutError: no frame"}]
      output: {value: null, delay: 0.2s}
    safe_state_command: [no-such-program]
"""
STAND_INS = {
    "given": "mock lab_hardware:MyShutter",
    "shipped": "mock of its driver, MockCamera",
    "helper": "scripted peer written out",
    "cooler": "scripted server (empty answers)",
    "laser": "autospec of Laser",
}


class TestDryRun:
    def test_what_stands_in_is_listed_and_stamped_and_answers_as_it_is_told(self, lab: Any) -> None:
        devices_in(lab, DRY_RUN)
        lab.steps(
            """
def test_acquire(devices):
    assert devices.check("given") == "simulated by the lab"
    assert devices["shipped"].grab(3) == 3
    assert devices["helper"].query("dose 5") == "OK"
    assert (devices["cooler"].timeout_s, devices["cooler"].get("status")) == (5, {})
    laser = devices["laser"]
    assert (laser.power_mw, laser.temperature_c()) == (5, 36.5)
    assert [laser.frames(1), laser.frames(1)] == [1, 2]
    with pytest.raises(TimeoutError, match="no frame"):
        laser.frames(1)
    started = time.monotonic()
    laser.output(True)
    assert time.monotonic() - started >= 0.19
    devices.returns("laser", temperature_c=40.0)
    assert laser.temperature_c() == 40.0
"""
        )
        result = lab.run_here("--dry-run")
        assert result.ret == 0, result.stdout.str()
        assert hardware(lab) == []
        lines = [f"{name}: {words}" for name, words in STAND_INS.items()]
        printed = result.stdout.str()
        assert [line.removeprefix("dry run: ") for line in printed.splitlines() if line.startswith("dry run: ")] == lines
        assert f"simulated: {', '.join(lines)}" in printed
        assert printed.index("dry run: given") < printed.index("test_experiment.py") < printed.index("simulated: given")
        assert lab.folder.parent == lab.path / "sessions" / "dry_runs"
        assert lab.end["dry_run"] is True
        assert lab.end["simulated"] == lines
        assert {name: one["simulated"] for name, one in lab.end["devices"].items()} == STAND_INS
        assert all(one["dry_run"] is True for one in lab.end["devices"].values())
        messages = [entry.message for entry in lab.log]
        assert [line.removeprefix("simulated: ") for line in messages if line.startswith("simulated: ")][:5] == lines
        assert any(re.fullmatch(r"given opened in \d+ ms \(mock lab_hardware:MyShutter\)", line) for line in messages)

    def test_a_wrong_call_fails_it(self, lab: Any) -> None:
        devices_in(lab, DRY_RUN)
        lab.steps(
            """
def test_no_such_method(devices): devices["laser"].outputt(True)
def test_too_few(devices): devices["laser"].frames()
def test_unknown_keyword(devices): devices["laser"].frames(number=3)
def test_more_than_the_driver_takes(devices): devices["shipped"].grab(3, 4)
def test_more_than_the_driver_has(devices): devices["given"].shut()
def test_right(devices): devices["laser"].frames(3)
"""
        )
        result = lab.run_here("--dry-run")
        assert result.ret == 1
        assert lab.outcomes() == {**dict.fromkeys(lab.outcomes(), "failed"), "test_right": "passed"}
        assert len(lab.outcomes()) == 6
        printed = result.stdout.str()
        assert "did you mean 'output'" in printed
        assert "missing a required argument: 'count'" in printed

    def test_one_that_is_killed_is_stamped_too(self, lab: Any) -> None:
        devices_in(lab, DRY_RUN)
        lab.steps("def test_acquire(devices):\n    devices['laser']\n    kill_me()\n")
        lab.run("--dry-run", "--inject", "laser.check=OSError", "--inject", "acquisition=exit:3")
        end = lab.wait_for(lambda: lab.end["outcome"] == "crashed" and lab.end)
        assert end["dry_run"] is True
        assert {name: one["simulated"] for name, one in end["devices"].items()} == STAND_INS
        assert end["simulated"][-2:] == ["injected: laser.check=OSError", "injected: acquisition=exit:3"]


class TestInject:
    def test_all_mistakes_in_one_message(self, lab: Any) -> None:
        wrong = {
            "laser.outptu=OSError": "did you mean 'output'",
            "lasr.open=OSError": "did you mean 'laser'",
            "laser.open=TimeotError": "no exception 'TimeotError'",
            "laser=hang": "name a method of 'laser'",
            "acquisition=burn": " -> write acquisition=KIND; possible are exit:N",
            "acquisition=exit:300": "is no fault of an acquisition",
        }
        lab.steps("def test_acquire(): pass\n")
        flags = [word for fault in ["laser.output=OSError", "acquisition=exit:3", *wrong] for word in ("--inject", fault)]
        result = lab.run_here("--dry-run", *flags)
        assert result.ret == 4
        printed = result.stderr.str()
        for fault, words in wrong.items():
            line = next(line for line in printed.splitlines() if fault in line)
            assert words in line
        assert "laser.output=OSError" not in printed
        assert not (lab.path / "sessions").exists()

    def test_never_in_a_real_session(self, lab: Any) -> None:
        lab.steps("def test_acquire(): pass\n")
        result = lab.run_here("--inject", "acquisition=chatty:5")
        assert result.ret == 4
        assert "add --dry-run" in result.stderr.str()
        assert not (lab.path / "sessions").exists()

    def test_a_fault_that_nothing_met_is_told(self, lab: Any) -> None:
        lab.steps("def test_acquire(devices): devices['laser'].output(True)\n")
        faults = ("laser.output=delay:0.01s", "laser.frames=OSError", "acquisition=exit:3")
        result = lab.run_here("--dry-run", *(word for fault in faults for word in ("--inject", fault)))
        assert result.ret == 0
        told = [line for line in result.stdout.lines if "never struck" in line]
        assert [line.split()[3] for line in told] == ["acquisition=exit:3", "laser.frames=OSError"]
        assert lab.messages.count("never struck") == 2

    def test_a_fault_of_a_device_that_knows_no_safe_state_leaves_nothing_unsafe(self, lab: Any) -> None:
        devices_in(lab, DRY_RUN)
        lab.steps("def test_acquire(devices): devices['shipped'].grab(3)\n")
        result = lab.run_here("--dry-run", "--inject", "shipped.grab=delay:0.01s")
        assert (result.ret, lab.end["outcome"]) == (0, "passed")

    def test_a_fault_that_struck_is_not(self, lab: Any) -> None:
        lab.steps(
            "def test_acquire(acquisition, devices):\n    devices['laser']\n"
            "    acquisition.run(command=[sys.executable, '-c', ''])\n"
        )
        result = lab.run_here("--dry-run", "--inject", "acquisition=chatty:3", "--inject", "laser.close=delay:0.01s")
        assert (result.ret, "never struck" in result.stdout.str() + lab.messages) == (0, False)
