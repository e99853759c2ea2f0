from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.acquisition import parse_fault
from pytest_openscope.config.fields import keys_of
from pytest_openscope.config.models import Device
from pytest_openscope.config.suggest import nearest
from pytest_openscope.devices.driver_registry import DRIVERS, LoadError, load
from pytest_openscope.devices.faults import check_faults, parse_injections
from pytest_openscope.devices.spec import KEYS, build_specs, check_specs
from pytest_openscope.records.failures import ConfigurationError
from pytest_openscope.system.times import format_duration, parse_duration_s

DRIVER = '''
class Camera:
    """A driver."""
    def __init__(self, serial: str, frame_rate_hz: float = 30.0):
        self.serial = serial
    def open(self): ...
    def grab(self, frames: int) -> int: ...
    def output(self, on: bool) -> None: ...
class MockCamera:
    def __init__(self, port): ...
number = 3
'''


@pytest.fixture
def rig_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "lab_specs.py").write_text(DRIVER, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("lab_specs", None)


def mistakes(raw: Any, rig_dir: Path, dry_run: bool = False) -> list[str]:
    return [str(mistake) for mistake in check_specs(raw, rig_dir, dry_run, "rig.yaml")]


CAMERA = {"driver": "lab_specs:Camera", "params": {"serial": "2210"}}


def test_right_section_has_no_mistakes(rig_dir: Path) -> None:
    raw = {
        "camera": {**CAMERA, "safe_state": {"call": "output", "args": [False]}, "returns": {"grab": [1, 2]}, "open": "eager"},
        "spout": {"driver": "serial", "port": "COM4", "baud": 115200, "timeout_s": 1},
    }
    assert mistakes(raw, rig_dir) == []
    specs = build_specs(raw)
    assert specs["camera"].open == "eager"
    assert specs["camera"].safe_state[0].args == (False,)
    assert specs["spout"].params == {"port": "COM4", "baud": 115200, "timeout_s": 1}
    assert specs["spout"].ready_made


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, ["devices.x", "no driver"]),
        ("serial", ["no driver"]),
        ({"driver": "seriall"}, ["did you mean 'serial'"]),
        ({"driver": "lab_specs:Camra", "params": {"serial": "1"}}, ["has no 'Camra'", "did you mean 'Camera'"]),
        ({"driver": "lab_nowhere:Camera"}, ["lab_nowhere", "cannot be imported", "beside the rig file"]),
        ({"driver": "lab_specs:number"}, ["neither a class nor a function"]),
        ({**CAMERA, "params": {}}, ["devices.x.params.serial", "needs 'serial'"]),
        ({**CAMERA, "params": {"serial": "1", "frame_rate": 3}}, ["did you mean 'frame_rate_hz'"]),
        ({**CAMERA, "safe_stat": "close"}, ["devices.x.safe_stat", "did you mean 'safe_state'"]),
        ({**CAMERA, "serial": "2"}, ["go into params"]),
        ({**CAMERA, "safe_state": {"call": "outpt"}}, ["no attribute 'outpt'", "did you mean 'output'"]),
        ({**CAMERA, "safe_state": "output"}, ["missing a required argument: 'on'"]),
        ({**CAMERA, "safe_state": {"do": 1}}, ["is no call"]),
        ({**CAMERA, "returns": {"grb": 1}}, ["no attribute 'grb'"]),
        ({**CAMERA, "returns": {"grab": {"raise": "TimeoutEror"}}}, ["no exception 'TimeoutEror'"]),
        ({**CAMERA, "returns": {"grab": {"delay": "soon"}}}, ["'soon' is no duration"]),
        ({**CAMERA, "open": "early"}, ["'early' is none of lazy, eager"]),
        ({**CAMERA, "open_timeout_s": -1}, ["is too small: at least 0.001 s"]),
        ({**CAMERA, "log_io": "yes"}, ["true or false expected", "write true without quotes"]),
        ({**CAMERA, "safe_state_command": {"a": 1}}, ["program and arguments"]),
        ({**CAMERA, "mock": "sims/none.yaml"}, ["does not exist", "relative to the rig file"]),
        ({**CAMERA, "mock": "lab_specs:Mock"}, ["has no 'Mock'"]),
        ({**CAMERA, "mock": "lab_specs:MockCamera"}, ["takes neither the device's params nor nothing"]),
        ({"driver": "serial", "port": "COM3", "baut": 9600}, ["no option 'baut'", "did you mean 'baud'"]),
        ({"driver": "serial", "port": "COM3", "baud": "fast"}, ["'fast' is not a valid integer"]),
        ({"driver": "serial", "port": "COM3", "timeout_s": True}, ["True is not a valid number"]),
        ({"driver": "serial"}, ["needs 'port'"]),
    ],
)
def test_mistakes_name_key_and_remedy(entry: Any, words: list[str], rig_dir: Path) -> None:
    text = "\n".join(mistakes({"x": entry}, rig_dir, dry_run=True))
    assert all(word in text for word in words), text


def test_all_mistakes_at_once(rig_dir: Path) -> None:
    raw = {"a": {"driver": "nope"}, "b.c": CAMERA, "d": {**CAMERA, "open": "x", "log_io": 3}}
    assert len(mistakes(raw, rig_dir)) == 4
    with pytest.raises(ConfigurationError):
        build_specs(raw)


def test_a_dry_run_with_a_mock_needs_no_vendor_library(rig_dir: Path) -> None:
    raw = {"x": {"driver": "spinnaker_sdk:Camera", "mock": "lab_specs:Camera", "params": {"serial": "1"}}}
    assert mistakes(raw, rig_dir, dry_run=True) == []
    assert "spinnaker_sdk" in mistakes(raw, rig_dir, dry_run=False)[0]


def test_a_module_that_fails_on_import_is_named(rig_dir: Path) -> None:
    (rig_dir / "lab_broken.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(LoadError, match="fails on import: ZeroDivisionError"):
        load("lab_broken:X", rig_dir)


def test_the_rig_folder_shadows_nothing(rig_dir: Path) -> None:
    (rig_dir / "json.py").write_text("oops = 1", encoding="utf-8")
    load("lab_specs:Camera", rig_dir)
    assert sys.path[-1] == str(rig_dir.resolve())


@pytest.mark.parametrize(
    ("text", "kind", "target", "method"),
    [
        ("camera.open=TimeoutError", "raise", "camera", "open"),
        ("camera.*=delay:2s", "delay", "camera", "*"),
        ("*.close=OSError:cable out", "raise", "*", "close"),
        ("camera.grab=hang", "hang", "camera", "grab"),
        ("camera.grab=json:JSONDecodeError", "", "", ""),
        ("camera.grab=subprocess:SubprocessError:gone", "raise", "camera", "grab"),
        ("camra.open=TimeoutError", "", "", ""),
        ("camera=TimeoutError", "", "", ""),
        ("camera.open", "", "", ""),
        ("camera.open=TimeotError", "", "", ""),
        ("camera.open=int", "", "", ""),
        ("camera.open=delay:never", "", "", ""),
    ],
)
def test_injections(text: str, kind: str, target: str, method: str) -> None:
    faults, wrong = parse_injections([text], ["camera"])
    if not kind:
        assert not faults
        assert text in str(wrong[0])
    else:
        assert not wrong
        assert (faults[0].kind, faults[0].target, faults[0].method) == (kind, target, method)


def test_all_wrong_injections_are_told() -> None:
    faults, wrong = parse_injections(["camera.open=OSError", "x.open=OSError", "camera.open=Oops"], ["camera"])
    assert [fault.text for fault in faults] == ["camera.open=OSError"]
    assert len(wrong) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("camera.grab=hang", []),
        ("camera.gr*=hang", []),
        ("*.safe_state=OSError", []),
        ("camera.*=delay:1s", []),
        ("camera.grabb=hang", ["has no 'grabb'", "did you mean 'grab'"]),
        ("camera.shut*=hang", ["has no 'shut*'", "it has open, close"]),
        ("any.whatever=hang", []),
        ("away.whatever=hang", []),
    ],
)
def test_a_fault_on_what_no_driver_has_is_a_mistake(text: str, words: list[str], rig_dir: Path) -> None:
    source = "class Any:\n    def __getattr__(self, name): ...\n"
    (rig_dir / "lab_any.py").write_text(source, encoding="utf-8")
    raw = {"camera": CAMERA, "any": {"driver": "lab_any:Any"}, "away": {"driver": "spinnaker_sdk:Camera"}}
    wrong = "\n".join(map(str, check_faults([text], raw, rig_dir)))
    assert bool(wrong) == bool(words)
    assert all(word in wrong for word in words), wrong


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acquisition=exit:3", "exit:3"),
        ("acquisition=exit", "exit:1"),
        ("acquisition=crash@2s", "crash@2s"),
        ("acquisition=hang", "hang"),
        ("acquisition=chatty", "chatty:100000"),
        ("acquisition=chatty:1000@1s", "chatty:1000@1s"),
        ("acquisition=burn", ""),
        ("acquisition=exit:x", ""),
        ("acquisition=exit:256", ""),
        ("acquisition=hang:3", ""),
        ("acquisition=crash@soon", ""),
    ],
)
def test_faults_of_the_acquisition(text: str, said: str) -> None:
    if said:
        assert str(parse_fault(text)) == said
    else:
        with pytest.raises(ValueError, match="is no"):
            parse_fault(text)


def test_the_configuration_knows_every_key_and_takes_no_drivers_option_for_a_misspelt_one() -> None:
    known = set(keys_of(Device))
    assert set(KEYS) <= known
    for name in DRIVERS:
        for option in inspect.signature(load(name, Path())).parameters:
            assert option in known or not nearest(option, known), (name, option)


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("500ms", 0.5), ("24h", 86400), ("7d", 604800), (3, 3), ("1.5m", 90)])
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", True, None, float("inf"), float("nan"), "1 fortnight"])
def test_wrong_durations(text: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration_s(text)


def test_durations_read_well() -> None:
    assert [format_duration(s) for s in (0.5, 180, 9000, 345600)] == ["0.5 s", "3 min", "2.5 h", "4 d"]


LIBRARIES = [("visa", "pyvisa"), ("serial", "serial"), ("zmq", "zmq"), ("visa", "pyvisa_sim")]


@pytest.mark.parametrize(("driver", "library"), LIBRARIES)
def test_a_library_that_is_not_installed_is_found_before_anything_opens(
    driver: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == library else real(name, *more))
    options = {"visa": {"address": "USB0::1::INSTR"}, "serial": {"port": "COM3"}, "zmq": {"address": "tcp://127.0.0.1:1"}}
    (tmp_path / "stand_ins.py").write_text("class Nothing: pass\n", encoding="utf-8")
    mocked = {"x": {"driver": driver, "mock": "stand_ins:Nothing", **options[driver]}}
    plain = {"x": {"driver": driver, **options[driver]}}
    for raw, dry_run in ((plain, False), (plain, True), (mocked, False), (mocked, True)):
        found = [str(one) for one in check_specs(raw, tmp_path, dry_run, "rig.yaml") if "does not have" in str(one)]
        needed = not (dry_run and raw is mocked) and (dry_run or library != "pyvisa_sim")
        told = f"rig.yaml: devices.x.driver: {driver} needs {library}, which this Python does not have"
        assert found == ([f'{told} -> pip install "pytest-openscope[{driver}]"'] if needed else [])
