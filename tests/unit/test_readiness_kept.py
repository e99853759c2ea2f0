from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.checks.readiness import VALIDATION, evaluate, keep_results, read_results
from pytest_openscope.checks.result import group_of
from pytest_openscope.system import command_line

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=timezone.utc)


def keep(folder: Path, *pairs: tuple[str, str], at: datetime = NOW, **more: Any) -> None:
    results = [{"check": check, "status": status, "message": "because"} for check, status in pairs]
    keep_results(folder, results, now=at, rig_file="rig.yaml", **more)


def test_groups() -> None:
    assert [group_of(name) for name in ("disk.fsync", "devices[a.b]", "clock")] == ["disk", "devices", "clock"]


def test_merged_and_replaced(tmp_path: Path) -> None:
    state = tmp_path / "state"
    keep(state, ("devices[laser]", "pass"), ("devices[old]", "fail"), ("test_water", "pass"))
    keep(state, ("devices[laser]", "fail"))
    assert {check: result["status"] for check, result in read_results(state).items()} == {
        "devices[laser]": "fail",
        "devices[old]": "fail",
        "test_water": "pass",
    }
    keep(state, ("devices[laser]", "pass"), complete=True)
    assert sorted(read_results(state)) == ["devices[laser]", "test_water"]
    keep_results(state, [{"check": "clock", "status": "warn"}])
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
        ({"require": ["devices"]}, timedelta(days=-30), ["30 d in the future", "clock set back"]),
        ({"require": ["devices"]}, timedelta(hours=-1), ["60 min in the future"]),
        ({"require": ["devces"]}, timedelta(0), ["devces was never checked (did you mean devices?)"]),
        ({"require": ["test_water"]}, timedelta(0), ["test_water was never checked (name the file"]),
    ],
)
def test_not_ready_names_check_and_command(block: dict[str, Any], age: timedelta, words: list[str], tmp_path: Path) -> None:
    keep(tmp_path, ("devices[laser]", "pass"), ("clock", "fail"))
    readiness = evaluate(block, tmp_path, NOW + age)
    assert not readiness.ok
    assert readiness.refuse
    assert all(word in readiness.message for word in words), readiness.message
    assert "pytest --rig-config rig.yaml --validate-rig" in readiness.message


def test_own_expiry_and_warning_only(tmp_path: Path) -> None:
    keep_results(tmp_path, [{"check": "test_water", "status": "pass", "expires_s": 7 * 86400}], now=NOW)
    assert evaluate({"require": ["test_water"]}, tmp_path, NOW + timedelta(days=6)).ok
    stale = evaluate({"require": ["test_water"], "on_stale": "warn"}, tmp_path, NOW + timedelta(days=8))
    assert (stale.ok, stale.refuse) == (False, False)


def test_a_failure_is_told_with_its_number_and_its_remedy(tmp_path: Path) -> None:
    disk = {"check": "disk.free_space", "status": "fail", "message": "free in /data", "value": 83.12, "unit": "GB"}
    keep_results(tmp_path, [{**disk, "limit": 200000, "remedy": "move finished sessions away"}], now=NOW)
    (problem,) = evaluate({"require": ["disk"]}, tmp_path, NOW).problems
    assert problem.endswith("ago: free in /data [83.12 GB, limit 200000 GB] -> move finished sessions away")
    keep_results(tmp_path, [{**disk, "limit": None, "unit": ""}], now=NOW)
    (problem,) = evaluate({"require": ["disk"]}, tmp_path, NOW).problems
    assert problem.endswith("ago: free in /data [83.12]")


def test_a_warning_says_that_the_session_goes_on(tmp_path: Path) -> None:
    refused = evaluate({"require": ["clock"]}, tmp_path, NOW).message
    assert refused.endswith("--validate-rig, or give --override-readiness REASON")
    warned = evaluate({"require": ["clock"], "on_stale": "warn"}, tmp_path, NOW).message
    assert warned.endswith("--validate-rig (the session goes on: readiness.on_stale is warn)")


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


def test_results_of_another_rig_do_not_count(tmp_path: Path) -> None:
    keep(tmp_path, ("clock", "pass"), rig_id="left")
    assert evaluate({"require": ["clock"]}, tmp_path, NOW, rig_id="left").ok
    assert not evaluate({"require": ["clock"]}, tmp_path, NOW, rig_id="right").ok
    keep(tmp_path, ("disk.fsync", "pass"), rig_id="right")
    assert list(read_results(tmp_path, "right")) == ["disk.fsync"]


def test_rigs_that_share_a_state_directory_keep_each_its_results(tmp_path: Path) -> None:
    for rig_id, check in (("left", "clock"), ("right", "disk.fsync"), ("left", "memory")):
        keep(tmp_path, (check, "pass"), rig_id=rig_id)
    assert sorted(read_results(tmp_path, "left")) == ["clock", "memory"]
    assert sorted(read_results(tmp_path, "right")) == ["disk.fsync"]


def test_what_the_rig_file_declares_now_is_what_counts(tmp_path: Path) -> None:
    keep(tmp_path, ("devices[laser]", "pass"), ("devices[old]", "fail"))
    assert evaluate({"require": ["devices"]}, tmp_path, NOW, declared={"devices": ["laser"]}).ok
    missing = evaluate({"require": ["devices"]}, tmp_path, NOW, declared={"devices": ["laser", "new"]})
    assert missing.problems == ("devices[new] was never checked",)
    assert evaluate({"require": ["devices"]}, tmp_path, NOW, declared={"devices": []}).ok


def test_what_could_not_be_measured_is_not_ready(tmp_path: Path) -> None:
    results = [
        {"check": "disk.writable", "status": "fail"},
        {"check": "disk.fsync", "status": "skip", "blocked_by": "disk.writable"},
    ]
    keep_results(tmp_path, results, now=NOW)
    problems = evaluate({"require": ["disk.fsync"]}, tmp_path, NOW).problems
    assert problems == ("disk.fsync could not be measured 0 s ago: disk.writable failed",)


def test_own_checks_are_named_with_their_files_until_these_are_gone(tmp_path: Path) -> None:
    own = tmp_path / "test_own.py"
    own.touch()
    keep_results(tmp_path, [{"check": "test_water", "status": "fail", "message": "dry", "file": str(own)}], now=NOW)
    message = evaluate({}, tmp_path, NOW, rig_file="rig.yaml").message
    assert command_line(["--rig-config", "rig.yaml", "--validate-rig", str(own)]) in message
    keep(tmp_path, ("clock", "pass"))
    own.unlink()
    assert evaluate({}, tmp_path, NOW).ok


@pytest.mark.parametrize("expires", ["soon", -1, float("nan"), float("inf"), None, []])
def test_damaged_expiry_is_that_of_the_rig(expires: Any, tmp_path: Path) -> None:
    keep_results(tmp_path, [{"check": "clock", "status": "pass", "expires_s": expires}], now=NOW)
    assert not evaluate({"require": ["clock"]}, tmp_path, NOW + timedelta(hours=25)).ok


@pytest.mark.parametrize("status", ["PASS", None, 3, "good"])
def test_unknown_status_has_not_passed(status: Any, tmp_path: Path) -> None:
    keep_results(tmp_path, [{"check": "clock", "status": status}], now=NOW)
    assert not evaluate({"require": ["clock"]}, tmp_path, NOW).ok
