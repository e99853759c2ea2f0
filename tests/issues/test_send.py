"""What becomes of reports on a server that behaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.issues import outbox
from pytest_openscope.issues.outbox import Ledger

from .fake_github import FakeGithub
from .kit import Rig, SimClock, failure, run_until_idle

DAY = 86_400.0


def created(rig: Rig, clock: SimClock, **more: str) -> int:
    rig.fail(**more)
    run_until_idle([rig], clock)
    assert rig.answers[0]["status"] == "created"
    return int(rig.answers[0]["issue_number"])


def test_first_failure_opens_one_labelled_issue(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    report = rig.fail()[0]
    rig.drain()
    assert rig.answers == [
        {
            "fingerprint": report["fingerprint"],
            "status": "created",
            "issue_url": "https://github.test/lab/rigs/issues/1",
            "issue_number": 1,
            "reason": "",
            "occurrence": 1,
        }
    ]
    assert github.issues[1]["labels"] == [{"name": "auto-report"}]
    assert f"Fingerprint: `{report['fingerprint']}`" in github.issues[1]["body"]
    assert "once on this rig so far" in github.issues[1]["body"]
    run_until_idle([rig], clock)
    assert not outbox.waiting(rig.state)
    assert github.labels["auto-report"]["description"].endswith("first: #1")


def test_answer_is_written_back_and_the_sent_text_kept(rig: Rig, github: FakeGithub) -> None:
    report = rig.fail()[0]
    rig.drain()
    state = json.loads(Path(report["debug_state"]).read_text(encoding="utf-8"))["github"]
    assert state["issue_number"] == 1
    assert state["status"] == "created"
    assert state["fingerprint"] == report["fingerprint"]
    assert state["occurrence"] == 1
    assert state["reported_at"]
    kept = Path(report["sent_copy"]).read_text(encoding="utf-8")
    assert github.issues[1]["body"] in kept
    assert github.issues[1]["title"] in kept


def test_two_failures_of_a_session_are_two_issues_and_both_are_written_back(rig: Rig, github: FakeGithub) -> None:
    first, second = rig.fail(failure(), failure(step="other", function="other"), failure())
    rig.drain()
    state = json.loads(Path(first["debug_state"]).read_text(encoding="utf-8"))["github"]
    assert github.open_numbers() == [1, 2]
    assert state["issue_number"] == 1
    assert [item["issue_number"] for item in state["reports"]] == [1, 2]
    assert second["debug_state"] == first["debug_state"]


def test_same_day_again_is_only_counted(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    rig.fail()
    rig.drain()
    assert rig.status == "known"
    assert rig.answers[-1]["occurrence"] == 2
    assert github.comment_bodies(1) == []


def test_next_day_is_commented_once_with_count_times_and_version(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    clock.advance(DAY)
    for _ in range(3):
        rig.fail(version="stimulus 0123abc")
        rig.drain()
    assert [answer["status"] for answer in rig.answers[1:]] == ["commented", "known", "known"]
    (comment,) = github.comment_bodies(1)
    assert "2 times" in comment
    assert "stimulus 0123abc" in comment


def test_another_rig_finds_the_issue_by_the_list(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    created(make_rig("rig-a"), clock)
    other = make_rig("rig-b")
    other.fail()
    other.drain()
    assert other.status == "commented"
    assert "rig-b" in github.comment_bodies(1)[0]
    assert github.open_numbers() == [1]


def test_an_issue_far_back_in_the_list_is_found_in_bounded_reads(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    created(make_rig("rig-a"), clock)
    for number in range(250):
        github.add_issue(f"another defect {number}", state="closed" if number % 5 == 0 else "open")
    other = make_rig("rig-b")
    other.fail()
    other.drain()
    assert (other.status, other.answers[-1]["issue_number"]) == ("commented", 1)
    lists = [request.query for request in github.requests if request.path.endswith("/issues") and request.verb == "GET"]
    assert [(query["state"], query["page"]) for query in lists[-3:]] == [("open", "1"), ("open", "2"), ("open", "3")]
    assert all(query["labels"] == "auto-report" and query["direction"] == "desc" for query in lists)
    assert github.count("GET", "/search.*") == 0


def test_the_reads_for_an_unknown_defect_are_bounded(rig: Rig, github: FakeGithub) -> None:
    github.labels["auto-report"] = {"name": "auto-report"}
    for number in range(1_700):
        github.add_issue("another defect", state="open" if number < 1_100 else "closed")
    rig.fail()
    rig.drain()
    assert rig.status == "created"
    lists = [request.query for request in github.requests if request.path.endswith("/issues") and request.verb == "GET"]
    assert [query["state"] for query in lists] == ["open"] * 10 + ["closed"] * 5


def test_only_the_ledger_and_the_issue_itself_are_read_for_a_known_defect(
    rig: Rig, github: FakeGithub, clock: SimClock
) -> None:
    created(rig, clock)
    github.requests.clear()
    rig.fail()
    rig.drain()
    assert [(request.verb, request.path) for request in github.requests] == [
        ("GET", "/repos/lab/rigs"),
        ("GET", "/repos/lab/rigs/issues/1"),
    ]


@pytest.mark.parametrize("edited", ["title", "body"])
def test_a_human_may_edit_title_or_body(edited: str, make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    created(make_rig("rig-a"), clock)
    github.issues[1][edited] = "rewritten by a human"
    other = make_rig("rig-b")
    other.fail()
    other.drain()
    assert other.status == "commented"


def test_a_fingerprint_in_another_issues_log_is_no_match(rig: Rig, github: FakeGithub) -> None:
    report = rig.reports()[0]
    github.labels["auto-report"] = {"name": "auto-report"}
    github.add_issue(body=f"a log\n\n```text\nFingerprint: `{report['fingerprint']}`\n```\n")
    github.add_issue(body="a pull request\n\nFingerprint: `" + report["fingerprint"] + "`", pull=True)
    outbox.enqueue(rig.state, report)
    rig.drain()
    assert rig.status == "created"


def test_closed_as_not_planned_stays_silent(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.set_state(1, "closed", "not_planned")
    clock.advance(DAY)
    rig.fail(version="new 2")
    rig.drain()
    assert rig.status == "known"
    assert "not planned" in rig.answers[-1]["reason"]
    assert github.comment_bodies(1) == []
    assert github.open_numbers() == []


def test_closed_as_completed_is_reopened_by_a_new_version(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.set_state(1, "closed", "completed")
    clock.advance(DAY)
    rig.fail(version="stimulus fixed")
    rig.drain()
    assert rig.status == "reopened"
    assert github.open_numbers() == [1]
    assert "Regression" in github.comment_bodies(1)[0]
    assert github.issues[1]["state_reason"] == "reopened"


def test_a_version_that_was_reported_does_not_reopen(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    created(make_rig("rig-a"), clock)
    github.set_state(1, "closed", "completed")
    clock.advance(DAY)
    other = make_rig("rig-b")
    other.fail()
    other.drain()
    assert other.status == "known"
    assert github.open_numbers() == []


def test_a_version_in_a_comment_counts_as_reported(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    created(make_rig("rig-a"), clock)
    other = make_rig("rig-b")
    other.fail(version="stimulus 2")
    other.drain()
    github.set_state(1, "closed", "completed")
    clock.advance(DAY)
    third = make_rig("rig-c")
    third.fail(version="stimulus 2")
    third.drain()
    assert third.status == "known"


def test_an_occurrence_before_the_closing_does_not_reopen(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    rig.fail(version="new")
    github.set_state(1, "closed", "completed", at=clock.now() + 60)
    rig.drain()
    assert rig.status == "known"
    assert github.open_numbers() == []


@pytest.mark.parametrize("case", ["old", "locked"])
def test_long_closed_or_locked_gets_a_new_issue_with_a_link(case: str, rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.set_state(1, "closed", "completed", locked=case == "locked")
    clock.advance(31 * DAY if case == "old" else DAY)
    rig.fail(version="new")
    run_until_idle([rig], clock)
    assert rig.answers[-1]["status"] == "created"
    assert github.open_numbers() == [2]
    assert "seen before as #1" in github.issues[2]["body"]
    clock.advance(DAY)
    rig.fail(version="new")
    rig.drain()
    assert (rig.status, rig.answers[-1]["issue_number"]) == ("commented", 2)


def test_open_and_locked_is_refused_in_words(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.issues[1]["locked"] = True
    clock.advance(DAY)
    rig.fail()
    rig.drain()
    assert rig.status == "refused"
    assert "locked" in rig.answers[-1]["reason"]
    assert not outbox.waiting(rig.state)


def test_a_duplicate_is_followed(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.add_issue("the human's own issue", "no fingerprint")
    github.comments[1].append({"id": 1, "body": "Duplicate of #2"})
    github.set_state(1, "closed", "duplicate")
    clock.advance(DAY)
    rig.fail()
    rig.drain()
    assert (rig.status, rig.answers[-1]["issue_number"]) == ("commented", 2)


def test_a_deleted_issue_is_forgotten(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    github.issues[1]["deleted"] = True
    clock.advance(DAY)
    rig.fail()
    rig.drain()
    assert (rig.status, rig.answers[-1]["issue_number"]) == ("created", 2)


def test_dropped_labels_are_told_and_the_issue_found_by_its_creator(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.repo["push"] = False
    rig = make_rig("rig-a")
    created(rig, clock)
    assert "label" in rig.answers[0]["reason"]
    other = make_rig("rig-b")
    other.fail()
    run_until_idle([other], clock)
    assert other.answers[0]["status"] == "commented"
    assert github.open_numbers() == [1]


def test_the_creators_issues_are_read_where_the_label_cannot_be_set(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.repo["push"] = False
    github.add_issue("somebody else's", labels=(), user={"login": "somebody"})
    rig = make_rig()
    rig.fail()
    run_until_idle([rig], clock)
    creators = {request.query.get("creator") for request in github.requests if "state" in request.query}
    assert creators == {None, "rig-bot"}
    assert rig.answers[0]["status"] == "created"


def test_each_answer_reaches_the_state_of_its_session(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    def state_of(report: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(Path(report["debug_state"]).read_text(encoding="utf-8"))["github"])

    def fail(version: str = "") -> dict[str, Any]:
        (report,) = rig.fail(version=version)
        run_until_idle([rig], clock)
        return state_of(report)

    states = [fail(), fail()]
    clock.advance(DAY)
    states.append(fail())
    github.set_state(1, "closed", "completed")
    clock.advance(DAY)
    states.append(fail("stimulus 2"))
    assert [state["status"] for state in states] == ["created", "known", "commented", "reopened"]
    assert [state["occurrence"] for state in states] == [1, 2, 3, 4]
    assert {state["issue_url"] for state in states} == {"https://github.test/lab/rigs/issues/1"}
    assert all(state["reported_at"] and state["issue_number"] == 1 for state in states)


def test_public_repository_masks_the_log_and_warns_once(make_rig: Callable[..., Rig], github: FakeGithub) -> None:
    github.repo["private"] = False
    rig = make_rig(sanitize_launcher_log=False)
    rig.fail()
    rig.drain()
    assert "names in the log were masked" in rig.answers[0]["reason"]
    assert "everybody can read" in rig.answers[0]["reason"]
    rig.fail(failure(step="b", function="b"))
    rig.drain()
    assert "everybody can read" not in rig.answers[-1]["reason"]


@pytest.mark.names_allowed
def test_private_repository_gets_the_log_verbatim_but_for_secrets(make_rig: Callable[..., Rig], github: FakeGithub) -> None:
    rig = make_rig(sanitize_launcher_log=False)
    rig.fail()
    rig.drain()
    head, _, log = github.issues[1]["body"].partition("<details><summary>Session log")
    assert "Zx81-mouse" in log
    assert "Zx81" not in head + github.issues[1]["title"]


@pytest.mark.names_allowed
def test_include_subject_user_shows_them(make_rig: Callable[..., Rig], github: FakeGithub) -> None:
    rig = make_rig(include_subject_user=True)
    rig.fail()
    rig.drain()
    assert "- **Subject:** `Zx81-mouse`" in github.issues[1]["body"]


def test_rig_configuration_only_if_wanted(make_rig: Callable[..., Rig], github: FakeGithub) -> None:
    plain, full = make_rig("a"), make_rig("b", include_rig_config=True)
    plain.fail()
    plain.drain()
    full.fail(failure(step="b", function="b"))
    full.drain()
    assert "Rig configuration" not in github.issues[1]["body"]
    assert '"path": "~/x"' in github.issues[2]["body"]


def test_no_token_keeps_the_report(rig: Rig, github: FakeGithub) -> None:
    rig.fail()
    rig.token = None
    rig.drain()
    assert rig.status == "queued"
    assert github.requests == []
    rig.token = "x"
    rig.drain()
    assert rig.status == "refused"
    assert "401" in rig.answers[-1]["reason"]


def test_forty_failures_are_forty_issues(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    rig = make_rig(max_new_issues_per_day=100)
    for number in range(40):
        rig.fail(failure(step=f"step_{chr(97 + number % 26)}{number // 26}", function=f"f{number}"))
    run_until_idle([rig], clock)
    assert len(github.open_numbers()) == 40
    assert len(github.issues) == 40


def test_beyond_the_daily_limit_one_issue_sums_up(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    rig = make_rig(max_new_issues_per_day=3)
    for number in range(6):
        rig.fail(failure(step=f"s{number}", function=f"f{number}", message=f"broken part {chr(97 + number)}"))
    run_until_idle([rig], clock)
    assert len(github.issues) == 4
    assert github.issues[4]["title"].startswith("More than 3")
    assert all(f"broken part {letter}" in github.issues[4]["body"] for letter in "def")
    assert rig.answers[-1]["issue_number"] == 4
    clock.advance(DAY)
    rig.fail(failure(step="s5", function="f5", message="broken part f"))
    rig.drain()
    assert (rig.status, rig.answers[-1]["issue_number"]) == ("created", 5)


def test_comments_of_a_rig_on_an_issue_are_capped(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    rig = make_rig(max_comments_per_issue=2)
    created(rig, clock)
    for _ in range(4):
        clock.advance(DAY)
        rig.fail()
        rig.drain()
    assert len(github.comments[1]) == 2
    assert rig.answers[-1]["occurrence"] == 5


def test_comments_of_all_rigs_on_an_issue_are_capped(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    created(make_rig("rig-a"), clock)
    github.comments[1] = [{"id": number, "body": "seen", "user": {"login": "rig-bot"}} for number in range(400)]
    other = make_rig("rig-b")
    other.fail()
    other.drain()
    assert other.status == "known"
    assert len(github.comments[1]) == 400


def test_a_damaged_ledger_and_a_damaged_report_are_set_aside(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    created(rig, clock)
    (rig.state / "ledger.json").write_text("{", encoding="utf-8")
    (rig.state / "outbox" / "000-broken.json").write_text("{", encoding="utf-8")
    rig.fail()
    rig.drain()
    assert rig.status == "commented"
    assert github.open_numbers() == [1]
    assert (rig.state / "ledger.damaged.json").exists()
    assert (rig.state / "outbox" / "000-broken.damaged").exists()
    assert Ledger(rig.state).data["repos"]
