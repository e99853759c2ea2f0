"""The check tests and their recorder, with a stand-in for the session around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CONFTEST = """
from pathlib import Path
from types import SimpleNamespace
import pytest
from pytest_openscope.checks.recorder import PLUGIN_NAME, CheckRecorder
from pytest_openscope.checks.suite import RigChecks
from pytest_openscope.devices.manager import Devices
from pytest_openscope.devices.spec import build_specs
import pytest_openscope.checks

DEVICES = {
    "laser": {"driver": "lab_rig:Laser"},
    "dead": {"driver": "lab_rig:Dead", "check_timeout_s": 0.2},
    "line": {"driver": "serial", "port": "/dev/tty_none"},
}
HERE = Path(__file__).parent

def pytest_configure(config):
    requirements = {"executables": ["no_such_bonsai"]}
    rig = SimpleNamespace(rig_id="bench", path=HERE / "rig.yaml", devices=DEVICES, requirements=requirements)
    rig.state_directory = HERE
    kind = {"launcher": "base", "acquisitions": ()}
    settings = SimpleNamespace(**kind, output_root=HERE / "out", centralized_log_directory=None, github_issue=None)
    configuration = SimpleNamespace(rig=rig, rig_file=rig.path, settings=settings, dry_run=False)
    config.pluginmanager.register(CheckRecorder(RigChecks(configuration, "me"), complete=True), PLUGIN_NAME)
    if config.args_source is not config.ArgsSource.ARGS:
        checks = Path(pytest_openscope.checks.__file__).parent
        config.args = [str(checks)]
        config.pluginmanager._confcutdir = checks

@pytest.fixture(scope="session")
def devices():
    manager = Devices(build_specs(DEVICES), rig_dir=HERE)
    yield manager
    manager.close_all()
"""
LAB = """
import time
class Laser:
    def check(self): return "LASER 7"
class Dead:
    def check(self): time.sleep(5)
"""
OWN = """
import pytest
@pytest.mark.rig_check(expires="7d")
def test_water(): pass
@pytest.mark.rig_check
def test_valve(): assert False, "valve stuck"
def test_other(): pass
"""


@pytest.fixture
def kept(pytester: pytest.Pytester) -> Path:
    pytester.makepyfile(conftest="from lab_conftest import *", lab_conftest=CONFTEST, lab_rig=LAB)
    path = pytester.path / "validation.json"
    path.write_text(json.dumps({"rig_id": "bench", "checks": {"devices[gone]": {"status": "pass"}}}))
    return path


def entries(kept: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text())["checks"]
    return found


def test_every_declared_thing_is_checked(pytester: pytest.Pytester, kept: Path) -> None:
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    status = {check: entry["status"] for check, entry in entries(kept).items()}
    assert "devices[gone]" not in status
    assert status["configuration"] == "pass"
    assert status["devices[laser]"] == "pass"
    assert status["devices[dead]"] == "fail"
    assert status["serial_ports[/dev/tty_none]"] == "fail"
    assert status["executables[no_such_bonsai]"] == "fail"
    assert status["mirror.writable"] == "skip"
    assert status["disk.write_speed"] == "pass"
    result.stdout.fnmatch_lines(
        [
            "*rig validation*",
            "*devices[[]laser[]]: pass: says 'LASER 7' (opened in * ms); check() took [[]* ms, limit 10000 ms]",
            "*checks: * pass, *",
        ]
    )
    result.stdout.fnmatch_lines(["*devices[[]dead[]]: fail: TimeoutError: dead.check did not return within 0.2 s*"])


def test_a_part_of_the_suite_is_not_complete(pytester: pytest.Pytester, kept: Path) -> None:
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "laser")
    assert list(entries(kept)) == ["devices[gone]", "devices[laser]"]


def test_the_labs_own_checks(pytester: pytest.Pytester, kept: Path) -> None:
    path = pytester.makepyfile(test_own=OWN)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", str(path))
    found = entries(kept)
    assert [found["test_water"][key] for key in ("status", "message", "expires_s")] == ["pass", "passed", 604800.0]
    assert found["test_valve"]["status"] == "fail"
    assert "valve stuck" in found["test_valve"]["message"]
    assert "test_other" not in found


def test_wrong_expiry_is_refused(pytester: pytest.Pytester, kept: Path) -> None:
    path = pytester.makepyfile(test_own=OWN.replace("7d", "a while"))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", str(path))
    result.stderr.fnmatch_lines(["*'a while' is no duration*"])
    assert list(entries(kept)) == ["devices[gone]"]
