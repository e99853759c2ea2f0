"""Which failures are reported, and what a report is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.config import GithubIssueSettings
from pytest_openscope.issues import outbox
from pytest_openscope.issues.client import Timing
from pytest_openscope.issues.outbox import postpone, result, write_back
from pytest_openscope.issues.report import build_report, is_reportable, missing_token, read_ends
from pytest_openscope.records.folder import METADATA
from pytest_openscope.records.phases import Outcome, Phase
from pytest_openscope.records.record import Failure, to_json

ON = {"enabled": True, "repo": "lab/rigs", "token_env": "T"}
PRE, ACQ, POST = Phase.PRE_ACQUISITION, Phase.ACQUISITION, Phase.POST_ACQUISITION


@pytest.mark.parametrize(
    ("kind", "outcome", "phase", "report_on", "expected"),
    [
        ("acquisition", Outcome.FAILED, ACQ, ["exception"], True),
        ("exception", Outcome.FAILED, ACQ, ["exception"], True),
        ("exception", Outcome.ERROR, PRE, ["exception"], True),
        ("timeout", Outcome.TIMEOUT, POST, ["exception"], True),
        ("crash", Outcome.CRASHED, PRE, ["exception"], True),
        ("internal", Outcome.ERROR, None, ["exception"], True),
        ("step", Outcome.FAILED, PRE, ["exception"], False),
        ("step", Outcome.FAILED, PRE, ["pre_acquisition"], True),
        ("exception", Outcome.FAILED, POST, ["post_acquisition"], True),
        ("exception", Outcome.FAILED, POST, ["pre_acquisition"], False),
        ("acquisition", Outcome.FAILED, ACQ, ["pre_acquisition", "post_acquisition"], False),
        ("interrupt", Outcome.INTERRUPTED, ACQ, ["exception"], False),
        ("exception", Outcome.INTERRUPTED, PRE, ["pre_acquisition"], False),
        ("exception", Outcome.FAILED, ACQ, [], False),
    ],
)
def test_report_on(kind: str, outcome: Outcome, phase: Phase | None, report_on: list[str], expected: bool) -> None:
    settings = GithubIssueSettings.of({**ON, "report_on": report_on})
    assert is_reportable(Failure(kind, outcome, "x", phase=phase), settings) is expected


def built(tmp_path: Path, settings: dict[str, Any] | None = None, **facts: Any) -> list[dict[str, Any]]:
    (tmp_path / METADATA).mkdir(exist_ok=True)
    failure = Failure("step", Outcome.FAILED, "x", phase=PRE, step="a")
    return build_report(
        {"failure": to_json(failure), "other_failures": [to_json(failure), "damaged"]},
        {**ON, **(settings or {})},
        facts={"rig_id": "rig-a", **facts},
        session_folder=tmp_path,
        environ={},
    )


def test_one_report_per_distinct_failure(tmp_path: Path) -> None:
    assert len(built(tmp_path)) == 1


def test_none_unless_enabled(tmp_path: Path) -> None:
    assert built(tmp_path, {"enabled": False}) == []
    assert built(tmp_path, {"repo": None}) == []


def test_dry_runs_only_if_wanted_and_stamped(tmp_path: Path) -> None:
    assert built(tmp_path, dry_run=True) == []
    (report,) = built(tmp_path, {"report_dry_runs": True}, dry_run=True)
    assert "(dry run)" in report["body"]


def test_a_report_is_plain_json(tmp_path: Path) -> None:
    (report,) = built(tmp_path)
    assert json.loads(json.dumps(report)) == report


def test_commits_make_the_version(tmp_path: Path) -> None:
    (tmp_path / METADATA).mkdir()
    revisions = [{"name": "stimulus", "commit": "0123456789abcdef"}, {"name": "pytest-openscope", "package_version": "9"}]
    (tmp_path / METADATA / "git_revisions.json").write_text(json.dumps(revisions), encoding="utf-8")
    (report,) = built(tmp_path)
    assert report["version_line"].endswith(", stimulus 0123456789ab")


def log_in(tmp_path: Path, text: str) -> None:
    (tmp_path / METADATA).mkdir(exist_ok=True)
    (tmp_path / METADATA / "launcher.log").write_text(text, encoding="utf-8")


def test_log_modes(tmp_path: Path) -> None:
    log_in(tmp_path, "".join(f"line {number}.\n" for number in range(100)))
    assert "line 0." in built(tmp_path)[0]["body"]
    tail = built(tmp_path, {"launcher_log_mode": "tail", "max_output_lines": 3})[0]["body"]
    assert "line 97." in tail
    assert "line 96." not in tail
    assert "line 99." not in built(tmp_path, {"include_launcher_log": False})[0]["body"]


def test_a_public_repository_gets_another_body_where_the_log_names_somebody(tmp_path: Path) -> None:
    log_in(tmp_path, "mouse 366122\n")
    (verbatim,) = built(tmp_path, subject_id="366122")
    assert "366122" in verbatim["body"]
    assert "366122" not in verbatim["body_public"]
    (masked,) = built(tmp_path, {"sanitize_launcher_log": True}, subject_id="366122")
    assert "366122" not in masked["body"]
    assert masked["body_public"] == ""


def test_ends_of_a_large_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("first\n" + "x" * 90 + "\n" + "middle\n" * 1000 + "last\n", encoding="utf-8")
    text = read_ends(path, 200)
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert "bytes left out" in text
    assert read_ends(tmp_path / "missing", 10) == ""


def test_answers_go_back_beside_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "debug_state.json"
    path.write_text(json.dumps({"session_uuid": "s", "github": {"issue_url": None}}), encoding="utf-8")
    one = {"fingerprint": "v1:a", "state": {"occurrence": 1}}
    assert write_back(path, result(one, "queued", reason="later"))
    assert write_back(path, result({**one, "fingerprint": "v1:b"}, "created", issue_url="u2", issue_number=2))
    assert write_back(path, result(one, "created", issue_url="u1", issue_number=1))
    state = json.loads(path.read_text(encoding="utf-8"))
    assert state["session_uuid"] == "s"
    assert (state["github"]["issue_url"], state["github"]["status"], state["github"]["occurrence"]) == ("u1", "created", 1)
    assert [item["issue_number"] for item in state["github"]["reports"]] == [1, 2]
    assert not write_back(tmp_path / "missing.json", result(one, "created"))


def test_the_outbox_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_REPORTS", 3)
    (report,) = built(tmp_path)
    for number in range(5):
        outbox.enqueue(tmp_path, {**report, "id": f"id{number}"})
    assert sorted(item["id"] for _, item in outbox.list_reports(tmp_path)) == ["id2", "id3", "id4"]
    assert outbox.waiting(tmp_path)
    assert not outbox.waiting(tmp_path / "nowhere")


def test_missing_token_is_one_warning() -> None:
    settings = GithubIssueSettings.of(ON)
    assert "T holds no token" in missing_token(settings, {})
    assert missing_token(settings, {"T": "x"}) == missing_token(GithubIssueSettings(), {}) == ""


def test_settings_travel_as_json() -> None:
    settings = GithubIssueSettings.of({**ON, "labels": "one", "unknown": 1, "max_body_chars": 10**6})
    assert GithubIssueSettings.of(json.loads(json.dumps(settings.as_json()))) == settings
    assert settings.labels == ("one",)
    assert settings.body_chars <= 65_536


def test_the_time_between_attempts_doubles_up_to_an_hour() -> None:
    report: dict[str, Any] = {"fingerprint": "v1:a", "state": {"attempts": 0}}
    waits = []
    for _ in range(99):
        postpone(report, "no answer", Timing(), 0.0)
        waits.append(report["state"]["next_try"])
    assert waits[:3] == [15, 30, 60]
    assert waits[-1] == 3600
    postpone(report, "the server asks to wait", Timing(), 0.0, 7.0)
    assert (report["state"]["next_try"], report["state"]["attempts"]) == (7.0, 99)
