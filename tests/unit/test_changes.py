from __future__ import annotations

import importlib.metadata
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.checks.changes import (
    LAST_GOOD,
    compare,
    describe_rig,
    keep_last_good,
    last_good,
)
from pytest_openscope.records import installed_versions

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=timezone.utc)


def test_changes_since_the_last_good_session(tmp_path: Path) -> None:
    assert compare(last_good(tmp_path, "bench"), {"packages": {"a": "1"}}).lines == ()
    before = describe_rig(
        packages={"numpy": "1.0", "gone": "1"},
        device_states={"laser": {"power_mw": 5, "on": False}, "closed": {"x": 1}},
        configuration={"camera": {"exposure_ms": 33}, "api_token": "secret-token-1", "name": "s3cret", "values": [1, 2]},
        secrets=["s3cret"],
    )
    keep_last_good(tmp_path, before, "mouse_1", NOW, "bench")
    kept = (tmp_path / LAST_GOOD).read_text(encoding="utf-8")
    assert "secret-token-1" not in kept
    assert "s3cret" not in kept
    now = describe_rig(
        packages={"numpy": "2.0", "new": "3"},
        device_states={"laser": {"power_mw": 6, "on": False}, "opened": {"y": 1}},
        configuration={"camera": {"exposure_ms": 20}, "api_token": "secret-token-2", "name": "s3cret", "values": [1, 2]},
        secrets=["s3cret"],
    )
    changes = compare(last_good(tmp_path, "bench"), now)
    assert changes.lines == (
        "state of laser.power_mw: 5 -> 6",
        "rig file: camera.exposure_ms: 33 -> 20",
        "1 package new: new 3, 1 gone: gone 1, 1 changed: numpy 1.0 -> 2.0",
    )
    assert changes.as_json["session"] == "mouse_1"
    assert changes.as_json["changes"]["packages"]["numpy"] == {"before": "1.0", "now": "2.0"}
    assert compare(last_good(tmp_path, "bench"), before).lines == ()
    assert last_good(tmp_path, "other rig") == {}


def test_many_packages_are_one_line_behind_what_matters(tmp_path: Path) -> None:
    many = {f"package-{number}": "1" for number in range(64)}
    before = describe_rig(packages={"numpy": "2.4.5", "scipy": "1"}, python="3.11.7", repositories={"lab": "a" * 40})
    keep_last_good(tmp_path, before, "mouse_1", NOW, "bench")
    now = {"numpy": "2.4.6", "scipy": "2", **many}
    current = describe_rig(packages=now, python="3.12.1", repositories={"lab": "b" * 40})
    assert compare(last_good(tmp_path, "bench"), current).lines == (
        "Python version: 3.11.7 -> 3.12.1",
        f"repository lab: {'a' * 40} -> {'b' * 40}",
        "64 packages new, 2 changed: numpy 2.4.5 -> 2.4.6, scipy 1 -> 2",
    )


def test_sections_that_were_not_kept_are_left_out(tmp_path: Path) -> None:
    keep_last_good(tmp_path, describe_rig(packages={"a": "1"}), "mouse_1", NOW, "bench")
    now = describe_rig(packages={"a": "1"}, device_states={"x": {"y": 1}})
    assert compare(last_good(tmp_path, "bench"), now).lines == ()


def test_readings_differ_by_noise_settings_by_anything(tmp_path: Path) -> None:
    before = describe_rig(device_states={"laser": {"power_mw": 5.0, "shots": 7}}, configuration={"gain": 5.0})
    keep_last_good(tmp_path, before, "mouse_1", NOW, "bench")
    noise = describe_rig(device_states={"laser": {"power_mw": 5.002, "shots": 7}}, configuration={"gain": 5.002})
    assert compare(last_good(tmp_path, "bench"), noise).lines == ("rig file: gain: 5.0 -> 5.002",)
    more = describe_rig(device_states={"laser": {"power_mw": 5.02, "shots": 8}})
    assert len(compare(last_good(tmp_path, "bench"), more).lines) == 2


def test_a_reading_that_is_no_number_is_no_change(tmp_path: Path) -> None:
    state = describe_rig(device_states={"probe": {"celsius": float("nan")}})
    keep_last_good(tmp_path, state, "mouse_1", NOW, "bench")
    assert compare(last_good(tmp_path, "bench"), state).lines == ()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"sections": 3, "rig_id": "bench"}', "[" * 100_000])
def test_a_damaged_file_holds_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / LAST_GOOD).write_text(content, encoding="utf-8")
    assert last_good(tmp_path, "bench") == {}


def test_a_driver_is_its_source_which_is_not_imported(tmp_path: Path) -> None:
    package = tmp_path / "lab_pkg_of_drivers"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError", encoding="utf-8")
    (package / "laser.py").write_text("raise RuntimeError", encoding="utf-8")
    devices: dict[str, Any] = {
        "laser": {"driver": "lab_pkg_of_drivers.laser:Laser"},
        "line": {"driver": "serial"},
        "none": {"driver": "no_such:X"},
    }

    def drivers() -> dict[str, Any]:
        return describe_rig(devices=devices, rig_dir=tmp_path)["drivers"]

    first = drivers()
    assert first["laser"].startswith("lab_pkg_of_drivers.laser:Laser ")
    assert (first["line"], first["none"]) == ("serial", "no_such:X")
    (package / "laser.py").write_text("raise TypeError", encoding="utf-8")
    assert drivers()["laser"] != first["laser"]
    assert not [name for name in sys.modules if name.startswith("lab_pkg_of_drivers")]


def test_a_driver_in_folders_that_are_no_packages_yet(tmp_path: Path) -> None:
    source = tmp_path / "lab_space" / "of" / "laser.py"
    source.parent.mkdir(parents=True)
    source.write_text("raise RuntimeError", encoding="utf-8")
    found = describe_rig(devices={"laser": {"driver": "lab_space.of.laser:Laser"}}, rig_dir=tmp_path)
    assert found["drivers"]["laser"].startswith("lab_space.of.laser:Laser ")


def test_versions_are_those_of_the_metadata() -> None:
    def plain(name: str) -> str:
        return name.lower().replace("_", "-").replace(".", "-")

    slow = {plain(one.metadata["Name"]): one.version for one in reversed(list(importlib.metadata.distributions()))}
    assert installed_versions() == dict(sorted(slow.items()))


def test_versions_of_an_odd_folder(tmp_path: Path) -> None:
    for name in ("My_Pkg-1.0.dist-info", "old-2.0-py3.11.egg-info", "~broken-1.dist-info", "x.dist-info", "y.egg-link"):
        (tmp_path / name).mkdir()
    found = installed_versions([str(tmp_path), str(tmp_path / "not there"), json.__file__])
    assert found == {"my-pkg": "1.0", "old": "2.0"}
