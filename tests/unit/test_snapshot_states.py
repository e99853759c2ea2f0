from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from git_kit import git

from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import AcquisitionFacts, Failure, SessionRecord, StepRecord, failures_in
from pytest_openscope.records.revisions import git_revisions, installed_versions
from pytest_openscope.records.snapshot import (
    debug_state,
    end_state,
    json_safe,
)
from pytest_openscope.system.files import json_bytes, read_json, update_json, write_json


def record(**changes: Any) -> SessionRecord:
    made = SessionRecord("s1", "m1", "u1", "rig1", "2026-01-01T10:00:00+00:00")
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def test_the_documented_keys_describe_the_first_failure() -> None:
    first = Failure(
        "exception", Outcome.FAILED, "no light", "lab.Dark", "Traceback…", Phase.ACQUISITION, "video", at="2026-01-01T10:00:00"
    )
    second = Failure("crash", Outcome.CRASHED, "died")
    state = debug_state(record(failures=[first, second]), parameters={"a": 1})
    assert state["session_uuid"] == "s1"
    assert (state["exception"], state["traceback"]) == ("no light", "Traceback…")
    assert state["crash_info"] == {"exception_type": "lab.Dark", "message": "no light", "crash_time": "2026-01-01T10:00:00"}
    assert state["github"] == {"issue_url": None, "issue_number": None, "reported_at": None}
    assert (state["phase"], state["step"], state["rig_id"]) == ("acquisition", "video", "rig1")
    assert failures_in(state) == [first, second]
    json.loads(json_bytes(state))


def test_nothing_in_it_can_break_the_json() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    nasty = {
        1: {2, 3},
        "nan": float("nan"),
        "bytes": b"\xff",
        "cycle": cycle,
        "path": Path("x"),
        "surrogate": "\ud800",
        "inf": [float("inf")],
    }
    state = debug_state(record(), launcher_state=nasty)
    assert json.loads(json_bytes(state))["launcher_state"]["nan"] is None
    assert json_safe(float("inf")) is None


def test_secrets_are_masked_by_key_and_by_value() -> None:
    failure = Failure("exception", Outcome.ERROR, "login with tops3cret failed at https://u:pa55word@host/x")
    state = debug_state(record(failures=[failure]), parameters={"api_token": "abcd1234"}, secrets=["tops3cret"])
    text = json.dumps(state)
    assert not any(secret in text for secret in ("tops3cret", "abcd1234", "pa55word"))


def test_versions_of_all_packages() -> None:
    assert installed_versions()["pytest"]


def test_the_end_state_has_the_documented_keys() -> None:
    step = StepRecord("video", "t.py::video", Phase.ACQUISITION, outcome=Outcome.PASSED)
    made = record(steps=[step], operator_notes="all fine", acquisitions=[AcquisitionFacts("camera", returncode=0)], exit_code=0)
    state = end_state(made, rig_config={"rig_id": "rig1"})
    wanted = "session_uuid subject_id user_id start_time stop_time process_returncode version rig_config experiment_data"
    assert list(state)[:9] == wanted.split()
    assert state["experiment_data"] == {"experiment_notes": "all fine"}
    assert (state["outcome"], state["process_returncode"], state["exit_code"]) == ("passed", 0, 0)
    assert state["steps"][0]["outcome"] == "passed"
    json.loads(json_bytes(state))


def test_a_provisional_state_has_no_end() -> None:
    state = end_state(record(), provisional=True)
    assert (state["stop_time"], state["outcome"], state["provisional"]) == (None, None, True)


def test_a_json_file_is_changed_in_place_and_a_broken_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "end_state.json"
    write_json(path, {"a": 1})
    assert update_json(path, lambda state: state.update(mirror="verified"))
    assert read_json(path) == {"a": 1, "mirror": "verified"}
    path.write_text("{")
    assert not update_json(path, lambda state: state.update(a=2))
    assert path.read_text() == "{"
    assert not update_json(tmp_path / "missing.json", lambda state: None)


def test_revisions_are_read_without_git(tmp_path: Path) -> None:
    repo = tmp_path / "lab"
    (repo / "sub").mkdir(parents=True)
    git(repo, "init")
    git(repo, "commit", "--allow-empty", "-m", "x")
    git(repo, "remote", "add", "origin", "https://user:t0psecret@example.org/lab.git")
    commit = git(repo, "rev-parse", "HEAD")
    git(repo, "worktree", "add", str(tmp_path / "tree"), "-b", "other")
    git(repo, "pack-refs", "--all")
    found = git_revisions([repo / "sub", repo, tmp_path / "tree", tmp_path])
    assert [entry["name"] for entry in found] == ["lab", "tree", "pytest-openscope"]
    assert [entry["commit"] for entry in found[:2]] == [commit, commit]
    assert [entry["branch"] for entry in found[:2]] == ["main", "other"]
    assert "t0psecret" not in found[0]["repository_url"]
    assert found[-1]["package_version"]
    git(repo, "checkout", "--detach")
    assert git_revisions([repo])[0]["commit"] == commit


def test_an_empty_repository_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert git_revisions([tmp_path])[0]["commit"] is None
