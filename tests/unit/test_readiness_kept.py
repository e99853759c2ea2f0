from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_openscope.readiness import (
    LAST_GOOD,
    VALIDATION,
    changes_since_last_good,
    describe_rig,
    evaluate,
    group_of,
    keep_last_good,
    keep_results,
    keeper,
    read_results,
)

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=timezone.utc)


def keep(folder: Path, *pairs: tuple[str, str], at: datetime = NOW, **more: Any) -> None:
    results = [{"check": check, "status": status, "message": "because"} for check, status in pairs]
    keep_results(folder, results, at, rig_file="rig.yaml", **more)


def test_groups() -> None:
    assert [group_of(name) for name in ("disk.fsync", "devices[a.b]", "clock")] == ["disk", "devices", "clock"]


def test_merged_and_replaced(tmp_path: Path) -> None:
    state = tmp_path / "state"
    keep(state, ("devices[laser]", "pass"), ("devices[old]", "fail"), ("clock", "pass"))
    keep(state, ("devices[laser]", "fail"))
    assert {check: result["status"] for check, result in read_results(state).items()} == {
        "devices[laser]": "fail",
        "devices[old]": "fail",
        "clock": "pass",
    }
    keep(state, ("devices[laser]", "pass"), complete=True)
    assert sorted(read_results(state)) == ["clock", "devices[laser]"]
    keeper(state, Path("other.yaml"))([{"check": "clock", "status": "warn"}], False)
    assert read_results(state)["clock"]["status"] == "warn"


def test_ready(tmp_path: Path) -> None:
    keep(tmp_path, ("devices[laser]", "pass"), ("disk.fsync", "warn"), ("mirror.latency", "skip"), ("clock", "fail"))
    block = {"require": ["devices", "disk", "mirror.latency"], "max_age": "24h"}
    assert evaluate(block, tmp_path, NOW + timedelta(hours=23)).ok


@pytest.mark.parametrize(
    ("block", "age", "words"),
    [
        ({"require": ["devices"]}, timedelta(hours=25), ["devices[laser] was checked 25 h ago, longer than 24 h"]),
        ({"require": ["devices"], "max_age": "2h"}, timedelta(hours=3), ["longer than 2 h"]),
        ({"require": ["clock"]}, timedelta(minutes=5), ["clock failed 5 min ago: because"]),
        ({"require": ["mirror"]}, timedelta(0), ["mirror was never checked"]),
        ({"require": ["clock", "mirror"]}, timedelta(0), ["clock failed", "mirror was never"]),
        ({}, timedelta(0), ["clock failed"]),
        ({"require": ["devices"]}, timedelta(days=-30), ["longer than"]),
    ],
)
def test_not_ready_names_check_and_command(block: dict[str, Any], age: timedelta, words: list[str], tmp_path: Path) -> None:
    keep(tmp_path, ("devices[laser]", "pass"), ("clock", "fail"))
    readiness = evaluate(block, tmp_path, NOW + age)
    assert not readiness.ok
    assert readiness.refuse
    assert all(word in readiness.message for word in words), readiness.message
    assert 'pytest --rig-config "rig.yaml" --validate-rig' in readiness.message


def test_own_expiry_and_warning_only(tmp_path: Path) -> None:
    keep_results(tmp_path, [{"check": "test_water", "status": "pass", "expires_s": 7 * 86400}], NOW)
    assert evaluate({"require": ["test_water"]}, tmp_path, NOW + timedelta(days=6)).ok
    stale = evaluate({"require": ["test_water"], "on_stale": "warn"}, tmp_path, NOW + timedelta(days=8))
    assert (stale.ok, stale.refuse) == (False, False)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"checks": 3}', '{"checks": {"clock": 3}}'])
def test_missing_or_damaged_results_are_no_results(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / VALIDATION).write_text(content, encoding="utf-8")
    assert not evaluate({"require": ["clock"]}, tmp_path, NOW).ok
    assert "never validated" in evaluate({}, tmp_path, NOW).message


def test_damaged_date_is_stale(tmp_path: Path) -> None:
    text = json.dumps({"checks": {"clock": {"status": "pass", "at": "yesterday"}}})
    (tmp_path / VALIDATION).write_text(text, encoding="utf-8")
    assert "unknown time" in evaluate({"require": ["clock"]}, tmp_path, NOW).message


def test_changes_since_the_last_good_session(tmp_path: Path) -> None:
    assert changes_since_last_good(tmp_path, {"packages": {"a": "1"}}).lines == ()
    before = describe_rig(
        packages={"numpy": "1.0", "gone": "1"},
        device_states={"laser": {"power_mw": 5, "on": False}},
        configuration={"camera": {"exposure_ms": 33}, "api_token": "secret-token-1", "values": [1, 2]},
    )
    keep_last_good(tmp_path, before, "mouse_1", NOW)
    assert "secret-token-1" not in (tmp_path / LAST_GOOD).read_text(encoding="utf-8")
    now = describe_rig(
        packages={"numpy": "2.0", "new": "3"},
        device_states={"laser": {"power_mw": 6, "on": False}},
        configuration={"camera": {"exposure_ms": 20}, "api_token": "secret-token-2", "values": [1, 2]},
    )
    changes = changes_since_last_good(tmp_path, now)
    assert changes.lines == (
        "package gone is gone (was 1)",
        "package new is new: 3",
        "package numpy: 1.0 -> 2.0",
        "state of laser.power_mw: 5 -> 6",
        "rig file: camera.exposure_ms: 33 -> 20",
    )
    assert changes.as_json["session"] == "mouse_1"
    assert changes.as_json["changes"]["packages"]["numpy"] == {"before": "1.0", "now": "2.0"}
    assert changes_since_last_good(tmp_path, before).lines == ()


def test_sections_that_were_not_kept_are_left_out(tmp_path: Path) -> None:
    keep_last_good(tmp_path, describe_rig(packages={"a": "1"}), "mouse_1", NOW)
    assert changes_since_last_good(tmp_path, describe_rig(packages={"a": "1"}, device_states={"x": {"y": 1}})).lines == ()


def test_a_drivers_version_is_its_own_or_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lab_driver.py"
    path.write_text("a = 1", encoding="utf-8")
    module = ModuleType("lab_driver")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "lab_driver", module)
    devices = {"laser": {"driver": "lab_driver:Laser"}, "line": {"driver": "serial"}}
    first = describe_rig(devices=devices)["drivers"]
    path.write_text("a = 2", encoding="utf-8")
    second = describe_rig(devices=devices)["drivers"]
    assert first["laser"] != second["laser"]
    assert first["line"] == second["line"]
    monkeypatch.setattr(module, "__version__", "1.2", raising=False)
    assert describe_rig(devices=devices)["drivers"]["laser"] == "lab_driver:Laser 1.2"
