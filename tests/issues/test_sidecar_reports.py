"""The sidecar's part of a report, where it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_openscope.issues.outbox import drop, enqueue, list_reports
from pytest_openscope.records.folder import METADATA
from pytest_openscope.records.journal import Journal
from pytest_openscope.records.record import to_json
from pytest_openscope.sidecar import recovery, reports
from pytest_openscope.sidecar.helpers import Helpers
from pytest_openscope.sidecar.reconstruct import SessionView
from pytest_openscope.sidecar.reports import LateAnswers, queue_reports, send_reports
from pytest_openscope.system.files import read_json, write_json

from .fake_github import REPO, FakeGithub
from .kit import PASSWORD, SESSION, SUBJECT, TOKEN_ENV, USER, Rig, failure
from .outgoing import TOKEN


def test_a_report_that_cannot_be_made_is_said_to_the_session(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a defect of the reporter's own")

    monkeypatch.setattr("pytest_openscope.issues.build_report", broken)
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig()
    folder = rig.session_folder()
    write_json(folder / METADATA / "debug_state.json", {"failure": to_json(failure())})
    view = SessionView(folder)
    view.session = {"report": rig.settings, "state_directory": str(rig.state)}
    answers: list[dict[str, Any]] = []
    left: list[int] = []
    journal = Journal(folder / METADATA / "witness.jsonl")
    with pytest.raises(KeyError):
        send_reports(view, journal, (), 1.0, answers.append, left.append)
    journal.close()
    assert left == [0]
    assert [answer["status"] for answer in answers] == ["refused"]
    assert 'the report could not be made: KeyError: "a defect of the reporter\'s own"' in answers[0]["reason"]


def failed_session(rig: Rig, mono: float = 1234.5678) -> SessionView:
    """A session that ended with two failures; return what its sidecar knows of it."""
    folder = rig.session_folder()
    failures = [to_json(failure()), to_json(failure(step="close_shutter", function="close"))]
    write_json(folder / METADATA / "debug_state.json", {"failure": failures[0], "other_failures": failures[1:]})
    view = SessionView(folder)
    view.session = {
        "report": rig.settings, "state_directory": str(rig.state), "session_uuid": SESSION, "subject_id": SUBJECT,
        "user_id": USER, "rig_id": rig.name, "pid": 12, "mono": mono,
    }  # fmt: skip
    return view


def queue(view: SessionView) -> list[dict[str, Any]]:
    """What a sidecar does that is killed before it notes that it has done it."""
    journal = Journal(view.folder / METADATA / "witness.jsonl")
    answers = queue_reports(view, journal, {PASSWORD})
    journal.close()
    return answers


def test_a_report_that_is_queued_again_counts_once(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, github: FakeGithub
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig()
    view = failed_session(rig)
    queue(view)
    assert [answer["status"] for answer in queue(view)] == ["queued", "queued"]
    assert len(list_reports(rig.state)) == 2, "while they wait"
    rig.drain(1.0)
    answers = queue(view)
    assert [answer["status"] for answer in answers] == ["created", "created"], "it is still said what became of them"
    assert answers[0]["issue_url"] == f"https://github.test/{REPO}/issues/1"
    assert len(list_reports(rig.state)) == 2, "while they settle"
    rig.drain(1000.0)
    assert list_reports(rig.state) == []
    assert queue(view) == answers
    assert list_reports(rig.state) == [], "once they are sent"
    told = read_json(view.folder / METADATA / "debug_state.json")
    assert told is not None
    assert [item["status"] for item in told["github"]["reports"]] == ["created", "created"]
    rig.drain(1000.0)
    assert [github.comment_bodies(number) for number in github.issues] == [[], []]
    queue(failed_session(rig, mono=99.0))
    rig.drain(1000.0)
    counted = rig.answers[-2:]
    assert [answer["occurrence"] for answer in counted] == [2, 2], "another session's counts"


def test_a_report_that_was_dropped_or_refused_is_not_queued_again(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, github: FakeGithub
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig()
    dropped, refused = failed_session(rig), failed_session(rig, mono=99.0)
    queue(dropped)
    assert len(drop(rig.state, "all")) == 2
    github.repo["archived"] = True
    queue(refused)
    rig.drain()
    for view in (dropped, refused):
        assert [answer["status"] for answer in queue(view)] == ["refused", "refused"]
    assert list_reports(rig.state) == []


def test_one_of_two_reports_is_queued_when_only_the_other_was(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig()
    view = failed_session(rig)
    queue(view)
    (first, report), _ = list_reports(rig.state)
    first.unlink()
    queue(view)
    assert report["id"] in [item["id"] for _, item in list_reports(rig.state)]
    assert len(list_reports(rig.state)) == 2


def test_reports_wait_in_the_order_in_which_they_were_queued(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several in one tick of the clock, and after it was set back; their fingerprints are in any order."""
    rig = make_rig()
    reports = rig.reports(
        *(failure(step=f"step_{number}", function=f"do_{letter}") for number, letter in enumerate("qwertzui"))
    )
    reports = [{**report, "fingerprint": f"v1:{number:012x}"} for number, report in zip(range(9, 0, -1), reports, strict=False)]
    ticks = iter([5 * 10**18] * 5 + [4 * 10**18] * 4)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: next(ticks))
        for report in reports:
            enqueue(rig.state, report)
    assert [report["id"] for _, report in list_reports(rig.state)] == [report["id"] for report in reports]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the sessions that a sidecar was started for."""
    names: list[str] = []

    def start(folder: Path, secrets: object = ()) -> int:
        names.append(folder.name)
        return 1

    monkeypatch.setattr(reports, "start_finisher", start)
    monkeypatch.setattr(recovery, "start_finisher", start)
    return names


def finished_session(home: Path, name: str, mirror: str | None = "/share", finished: bool = True) -> Path:
    """A session that is over; return its ``debug_state.json``."""
    metadata = home / name / METADATA
    metadata.mkdir(parents=True)
    journal = Journal(metadata / "journal.jsonl")
    journal.write("session", session_uuid=name, state_directory=str(home / "state"), mirror_directory=mirror, mono=0.0)
    journal.write("ended", outcome="failed")
    if finished:
        journal.write("finished")
    journal.close()
    return metadata / "debug_state.json"


def test_only_finished_sessions_with_a_mirror_and_news_are_mirrored_again(tmp_path: Path, started: list[str]) -> None:
    told: list[str] = []
    news = {"status": "created"}
    with LateAnswers(own=tmp_path / "own", tell=told.append) as late:
        late.written(finished_session(tmp_path, "own"), news)
        late.written(finished_session(tmp_path, "without", mirror=None), news)
        late.written(finished_session(tmp_path, "unfinished", finished=False), news)
        late.written(finished_session(tmp_path, "waits"), {"status": "queued"})
        late.written(tmp_path / "gone" / METADATA / "debug_state.json", news)
        assert started == []
        good = finished_session(tmp_path, "good")
        late.written(good, news)
        assert started == ["good"], "it does not wait for the other reports"
        late.written(good, {"status": "known"})
    assert started == ["good", "good"], "a second change may have missed the first copy"
    assert told == ["good"]


def test_many_sessions_are_mirrored_again_a_few_at_a_time(tmp_path: Path, started: list[str]) -> None:
    with LateAnswers() as late:
        for number in range(11):
            late.written(finished_session(tmp_path, f"s{number:02}"), {"status": "created"})
    assert len(started) == recovery.REFRESHED_AT_ONCE == 8
    notes = tmp_path / "state" / "unfinished"
    assert len(list(notes.iterdir())) == 11
    for name in started:
        (notes / f"{name}.json").unlink()
    started.clear()
    assert recovery.recover(tmp_path / "state") == []
    assert sorted(started) == ["s08", "s09", "s10"]


def test_a_session_that_reports_nothing_loads_nothing_that_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sends takes longer to import than all the rest of a sidecar, and every session has one."""
    monkeypatch.setitem(sys.modules, "pytest_openscope.issues", None)
    helpers = Helpers.__new__(Helpers)
    helpers.view = SimpleNamespace(finished=False, value=lambda key: None)
    helpers._start_old_reports()
    helpers.view.value = {"report": {"enabled": True}}.get
    with pytest.raises(ImportError):
        helpers._start_old_reports()
