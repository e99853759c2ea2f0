"""Servers that misbehave: nothing is lost, nothing is doubled, nothing takes longer than its limit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_openscope.issues import outbox
from pytest_openscope.issues.client import Api, GoneError, Timing, TransientError, cause_in_words
from pytest_openscope.issues.outbox import Ledger
from pytest_openscope.issues.sending import Drained, drain

from .fake_github import REPO, FakeGithub
from .kit import TOKEN_ENV, Rig, SimClock, failure, run_until_idle
from .outgoing import TOKEN

ISSUES = r"/repos/lab/rigs/issues"
CREATE = {"verb": "POST", "path": ISSUES + "$"}
READ = {"path": "/repos/lab/rigs$"}


def answer_of(report: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(Path(report["debug_state"]).read_text(encoding="utf-8"))["github"])


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "after": True},
        {"status": 500, "after": True},
        {"how": "cut", "after": True},
        {"how": "truncate"},
        {"status": 201, "after": True, "content": {}},
        {"status": 201, "after": True, "content": []},
    ],
    ids=["502", "500", "cut", "truncated", "empty object", "list"],
)
@pytest.mark.parametrize("lag_s", [0.0, 4.0, 60.0])
def test_a_creation_without_answer_is_looked_up_not_repeated(
    fault: dict[str, Any], lag_s: float, rig: Rig, github: FakeGithub, clock: SimClock
) -> None:
    github.list_lag_s = lag_s
    github.fault(**CREATE, **fault)
    report = rig.fail()[0]
    rig.drain(1.0)
    assert rig.status == "queued"
    assert answer_of(report)["status"] == "queued"
    run_until_idle([rig], clock)
    assert len(github.issues) == 1
    assert github.count("POST", ISSUES) == 1, "PyGithub's own retry would make eleven of one 502"
    assert answer_of(report)["status"] == "created"
    assert answer_of(report)["issue_number"] == 1


@pytest.mark.parametrize("fault", [{"status": 502}, {"how": "cut"}], ids=["502", "cut"])
def test_a_creation_that_did_not_take_place_is_made_once_that_is_certain(
    fault: dict[str, Any], rig: Rig, github: FakeGithub, clock: SimClock
) -> None:
    github.fault(**CREATE, **fault)
    rig.fail()
    run_until_idle([rig], clock)
    assert len(github.issues) == 1
    assert rig.status == "created"


def test_a_comment_without_answer_is_not_doubled(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    rig.fail()
    run_until_idle([rig], clock)
    clock.advance(86_400)
    github.fault(verb="POST", path="/comments$", status=502, after=True)
    rig.fail()
    run_until_idle([rig], clock)
    assert len(github.comments[1]) == 1
    assert rig.status == "commented"


@pytest.mark.parametrize("lost", [True, False])
def test_giving_way_survives_lost_answers(
    lost: bool, make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.list_lag_s = 4.0
    rigs = [make_rig("a"), make_rig("b")]
    for rig in rigs:
        rig.fail()
        rig.drain(1.0)
    github.fault(verb="POST", path="/comments$", status=502, after=lost)
    github.fault(verb="PATCH", path="/issues/2$", status=502, after=lost)
    run_until_idle(rigs, clock)
    assert github.open_numbers() == [1]
    assert len([body for body in github.comment_bodies(2) if body.startswith("Duplicate of")]) == 1
    assert len(github.comments[1]) == 1


def test_closing_without_the_duplicates_id_where_the_server_does_not_know_it(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    github.list_lag_s = 4.0
    rigs = [make_rig("a"), make_rig("b")]
    for rig in rigs:
        rig.fail()
        rig.drain(1.0)
    github.fault(verb="PATCH", path="/issues/2$", status=422, content={"message": "Validation Failed"})
    run_until_idle(rigs, clock)
    assert github.issues[2]["state_reason"] == "duplicate"


@pytest.mark.parametrize("status", [403, 429])
def test_retry_after_delays_the_outbox(status: int, rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    github.fault(**CREATE, status=status, headers={"Retry-After": "3600"}, content={"message": "secondary rate limit"})
    rig.fail()
    rig.fail(failure(step="b", function="b"))
    rig.drain()
    asked = len(github.requests)
    assert rig.status == "queued"
    assert "asks to wait" in rig.answers[-1]["reason"]
    clock.advance(3500)
    rig.drain()
    assert len(github.requests) == asked
    clock.advance(110)
    rig.drain()
    assert len(github.open_numbers()) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_an_outage_that_names_its_end_is_waited_for(form: str, rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    after = "1800" if form == "seconds" else formatdate(time.time() + 1800, usegmt=True)
    github.fault(**CREATE, status=503, headers={"Retry-After": after}, after=True)
    rig.fail()
    rig.drain()
    assert rig.status == "queued"
    assert Ledger(rig.state).not_before(github.base_url) == pytest.approx(clock.now() + 1800, abs=60)
    assert outbox.list_reports(rig.state)[0][1]["state"]["attempts"] == 1, "a server that is down for ever is given up"
    run_until_idle([rig], clock)
    assert github.count("POST", ISSUES) == 1, "that it took effect all the same is looked up"
    assert rig.status == "created"


@pytest.mark.parametrize(("after", "wait_s"), [("soon", 60.0), ("0", 1.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 1.0)])
def test_any_retry_after_is_understood(after: str, wait_s: float, rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    github.fault(**CREATE, status=429, headers={"Retry-After": after})
    rig.fail()
    rig.drain()
    assert Ledger(rig.state).not_before(github.base_url) == pytest.approx(clock.now() + wait_s, abs=5.0)


def test_primary_rate_limit_waits_for_its_reset(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time() + 1800))}
    github.fault(path="/repos/lab/rigs$", status=403, headers=headers, content={"message": "API rate limit exceeded"})
    rig.fail()
    rig.drain()
    due = Ledger(rig.state).not_before(github.base_url)
    assert 1790 < due - clock.now() <= 1800


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"path": "/repos/lab/rigs$", "status": 401, "content": {"message": "Bad credentials"}}, "401"),
        ({"path": "/repos/lab/rigs$", "status": 403, "content": {"message": "Resource not accessible"}}, "403"),
        ({"path": "/repos/lab/rigs$", "status": 404, "content": {"message": "Not Found"}}, "may not see it"),
        ({**CREATE, "status": 410, "content": {"message": "Issues are disabled"}}, "410"),
        ({**CREATE, "status": 422, "content": {"message": "Validation Failed"}}, "422"),
        ({**CREATE, "status": 403, "content": {"message": "Resource not accessible by token"}}, "not accessible"),
    ],
)
def test_a_no_is_final_and_said(fault: dict[str, Any], said: str, rig: Rig, github: FakeGithub) -> None:
    github.fault(**fault)
    report = rig.fail()[0]
    rig.drain()
    assert rig.status == "refused"
    assert said in rig.answers[-1]["reason"]
    assert answer_of(report)["status"] == "refused"
    assert not outbox.waiting(rig.state)
    assert len(Ledger(rig.state).data["refused"]) == 1


@pytest.mark.parametrize(("key", "value", "said"), [("archived", True, "archived"), ("has_issues", False, "issues turned off")])
def test_archived_or_without_issues_is_refused(key: str, value: bool, said: str, rig: Rig, github: FakeGithub) -> None:
    github.repo[key] = value
    rig.fail()
    rig.drain()
    assert rig.status == "refused"
    assert said in rig.answers[-1]["reason"]


@pytest.mark.parametrize("status", [301, 307])
def test_a_renamed_repository_is_followed(status: int, rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    github.full_name, github.moved_from, github.redirect_status = "lab/rigs-renamed", "lab/rigs", status
    rig.fail()
    run_until_idle([rig], clock)
    assert github.open_numbers() == [1]
    assert "rigs-renamed" in rig.answers[0]["issue_url"]


def test_a_rename_in_the_middle_is_no_success(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    location = f"{github.base_url}/repositories/7/issues"
    github.fault(**CREATE, status=307, headers={"Location": location}, content={"message": "Temporary Redirect"})
    rig.fail()
    rig.drain(1.0)
    assert rig.status == "queued"
    run_until_idle([rig], clock)
    assert rig.status == "created"
    assert len(github.issues) == 1


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_another_server_gets_no_token(status: int, rig: Rig, github: FakeGithub) -> None:
    github.fault(path="/repos/lab/rigs$", status=status, headers={"Location": "http://localhost:1/repos/lab/rigs"})
    rig.fail()
    rig.drain()
    assert rig.status == "refused"
    assert "localhost" in rig.answers[-1]["reason"]


def test_an_empty_list_is_not_believed(make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock) -> None:
    first = make_rig("a")
    first.fail()
    run_until_idle([first], clock)
    github.empty_lists = True
    for rig, step in ((first, "another"), (make_rig("b"), "open_shutter")):
        rig.fail(failure(step=step, function=step))
        rig.drain()
        assert rig.status == "queued"
        assert "cannot be believed" in rig.answers[-1]["reason"]
    github.empty_lists = False
    clock.advance(60)
    first.drain()
    assert first.status == "created"


def test_an_empty_list_is_not_believed_even_when_all_is_closed(
    make_rig: Callable[..., Rig], github: FakeGithub, clock: SimClock
) -> None:
    first = make_rig("a")
    first.fail()
    run_until_idle([first], clock)
    github.set_state(1, "closed", "not_planned")
    github.empty_lists = True
    other = make_rig("b")
    other.fail()
    other.drain()
    assert other.status == "queued"
    assert len(github.issues) == 1


@pytest.mark.parametrize(
    "fault",
    [{"how": "truncate"}, {"status": 200, "content": {"message": "?"}}, {"status": 200, "content": "text"}, {"status": 502}],
    ids=["truncated", "object", "text", "502"],
)
def test_no_read_no_create(fault: dict[str, Any], rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    github.fault(verb="GET", path=ISSUES + "$", times=3, **fault)
    rig.fail()
    rig.drain(1.0)
    assert rig.status == "queued"
    assert github.issues == {}
    run_until_idle([rig], clock)
    assert len(github.issues) == 1


def test_labels_that_may_not_be_created_do_not_stop_a_report(rig: Rig, github: FakeGithub) -> None:
    github.fault(verb="POST", path="/labels$", status=403, content={"message": "Resource not accessible"})
    rig.fail()
    rig.drain()
    assert rig.status == "created"
    assert "label" in rig.answers[-1]["reason"]


def test_a_label_made_by_another_rig_meanwhile_is_fine(rig: Rig, github: FakeGithub) -> None:
    content = {"message": "Validation Failed", "errors": [{"code": "already_exists"}]}
    github.fault(verb="POST", path="/labels$", status=422, content=content)
    rig.fail()
    rig.drain()
    assert (rig.status, rig.answers[-1]["reason"]) == ("created", "")


def test_a_report_is_given_up_after_a_month(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    github.fault(status=502, times=10_000)
    rig.fail()
    rig.drain()
    clock.advance(31 * 86_400)
    rig.drain()
    assert rig.status == "queued", "it was hardly tried: the clock may have been set"
    for _ in range(8):
        clock.advance(3600)
        rig.drain()
    assert rig.status == "refused"


def test_a_report_is_not_put_off_by_a_clock_that_was_set_back(rig: Rig, github: FakeGithub, clock: SimClock) -> None:
    """When it is tried next is on record; after a year in the future nobody would wait for that."""
    github.fault(status=502, times=1)
    clock.advance(365 * 86_400)
    rig.fail()
    rig.drain(deadline_s=5.0)
    assert rig.status == "queued"
    clock.advance(-365 * 86_400)
    rig.drain()
    assert rig.status == "created"


# -- through worker processes, in real time


@pytest.fixture
def real(make_rig: Callable[..., Rig]) -> Iterator[tuple[FakeGithub, Callable[..., Rig]]]:
    server = FakeGithub(time.time)

    def make(name: str = "rig-real", **settings: Any) -> Rig:
        return make_rig(name, api_base_url=server.base_url, **settings)

    yield server, make
    server.close()


QUICK = Timing(write_pace_s=0.0, settle_s=(0.2, 0.4), trust_s=1.0, retry_s=(0.3, 1.0))


def really_drain(rig: Rig, deadline_s: float, timing: Timing = QUICK, **more: Any) -> Drained:
    return drain(rig.state, deadline_s, {TOKEN_ENV: TOKEN}.get, rig.answers.append, timing=timing, **more)


def test_a_worker_sends_and_settles(real: tuple[FakeGithub, Callable[..., Rig]]) -> None:
    server, make = real
    rig = make()
    rig.fail()
    drained = really_drain(rig, 60.0)
    assert [answer["status"] for answer in rig.answers] == ["created"]
    assert drained == Drained()
    assert server.open_numbers() == [1]


def test_a_server_that_drips_or_hangs_is_left_at_the_deadline(make_rig: Callable[..., Rig]) -> None:
    """In reading and in creating; all at the same time, since each of them sits out its deadline."""
    cases = [(name, where, how) for name, where in (("read", READ), ("create", CREATE)) for how in ("drip", "hang")]
    servers = [FakeGithub(time.time) for _ in cases]
    rigs = [
        make_rig(f"rig-{name}-{how}", api_base_url=server.base_url)
        for (name, _, how), server in zip(cases, servers, strict=True)
    ]
    try:
        with ThreadPoolExecutor(len(cases)) as pool:
            left = [
                pool.submit(is_left_at_the_deadline, server, rig, where, how)
                for (_, where, how), server, rig in zip(cases, servers, rigs, strict=True)
            ]
        for case, one in zip(cases, left, strict=True):
            if error := one.exception():
                raise AssertionError(f"{case}: {error}") from error
    finally:
        for server in servers:
            server.close()


def is_left_at_the_deadline(server: FakeGithub, rig: Rig, where: dict[str, str], how: str) -> None:
    fault = server.fault(**where, how=how, times=100, after=True)
    report = rig.fail()[0]
    began = time.monotonic()
    really_drain(rig, 1.6, Timing(write_pace_s=0.0, request_timeout_s=30, retry_s=(0.1, 30.0)))
    assert time.monotonic() - began < 15
    assert rig.status == "queued"
    assert answer_of(report)["status"] == "queued"
    fault.times = 0
    really_drain(rig, 60.0)
    assert len(server.issues) == 1
    assert answer_of(report)["status"] == "created"


@pytest.mark.parametrize("how", ["drip", "hang"])
def test_an_attempt_ends_after_timeout_s_however_much_time_there_is(
    how: str, real: tuple[FakeGithub, Callable[..., Rig]]
) -> None:
    server, make = real
    rig = make(timeout_s=1.0)
    server.fault(how=how, times=100, after=True)
    rig.fail()
    began = time.monotonic()
    really_drain(rig, 30.0, Timing(retry_s=(60.0, 60.0)))
    assert time.monotonic() - began < 15
    assert rig.answers[0]["reason"] == "no answer within 1 s"


def test_a_dead_server_costs_one_attempt(real: tuple[FakeGithub, Callable[..., Rig]]) -> None:
    server, make = real
    rig = make()
    server.close()
    rig.fail()
    began = time.monotonic()
    really_drain(rig, 3.0, Timing(retry_s=(60.0, 60.0)))
    assert time.monotonic() - began < 15
    assert rig.status == "queued"


def test_one_sender_at_a_time(real: tuple[FakeGithub, Callable[..., Rig]]) -> None:
    server, make = real
    rig = make()
    rig.fail()
    threads = [threading.Thread(target=really_drain, args=(rig, 20.0)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.issues) == 1
    assert [answer["status"] for answer in rig.answers] == ["created"]


def test_a_worker_does_not_outlive_its_sender(
    real: tuple[FakeGithub, Callable[..., Rig]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that did would write to a report that the next sender, who has the lock now, is about to send."""
    server, make = real
    rig = make()
    fault = server.fault(**CREATE, how="hang", times=100)
    rig.fail()
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    line = [sys.executable, "-m", "pytest_openscope", "outbox", "send", "--state-directory", str(rig.state)]
    sender = psutil.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: fault.times < 100)
    workers = sender.children(recursive=True)
    assert workers
    sender.kill()
    sender.wait()
    assert psutil.wait_procs(workers, 30.0)[1] == []
    (_, report), *_ = outbox.list_reports(rig.state)
    assert report["state"]["posting_at"], "what was under way is looked up before it is repeated"


def wait_for(what: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.02)


def test_the_token_is_neither_on_disk_nor_on_a_command_line(real: tuple[FakeGithub, Callable[..., Rig]]) -> None:
    server, make = real
    rig = make()
    server.fault(path="/repos/lab/rigs$", how="hang", times=1)
    rig.fail()
    seen: list[str] = []

    sender = threading.Thread(target=really_drain, args=(rig, 3.0))
    sender.start()
    while sender.is_alive():
        # Only what this test started: others that run at the same time have the same token.
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                seen.append(" ".join(process.cmdline()))
        sender.join(0.05)
    assert seen
    assert not any(TOKEN in line for line in seen)
    for path in rig.home.rglob("*"):
        if path.is_file() and path.name != "launcher.log" and "debug_state" not in path.name:
            assert TOKEN.encode() not in path.read_bytes(), path
    assert os.environ.get(TOKEN_ENV) is None


def test_a_server_that_is_not_there_is_named_with_the_cause_in_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{unused.getsockname()[1]}"
    api = Api(f"http://{server}", REPO, TOKEN, Timing(request_timeout_s=5))
    for ask in (lambda: api.facts, lambda: api.request("GET", "/user", dict)):
        with pytest.raises(TransientError) as caught:
            ask()
        assert str(caught.value) == f"{server} cannot be reached: connection refused"
        assert not caught.value.uncertain
    api.close()


def test_a_dead_proxy_is_named_as_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{unused.getsockname()[1]}"
    for scheme in ("https", "http"):
        monkeypatch.setenv(f"{scheme}_proxy", f"http://ada:hunter2@{proxy}")
        api = Api(f"{scheme}://api.github.example", REPO, TOKEN, Timing(request_timeout_s=5))
        with pytest.raises(TransientError) as caught:
            api.request("GET", "/user", dict)
        told = str(caught.value)
        assert told.startswith(f"the proxy {proxy} (of this PC's settings), through which api.github.example is asked, ")
        assert told.endswith("cannot be reached: connection refused")
        assert not caught.value.uncertain
        api.close()


def test_the_pages_of_github_enterprise_are_not_its_api(github: FakeGithub) -> None:
    api = Api(github.base_url, "nobody/nothing", TOKEN, Timing(request_timeout_s=5))
    with pytest.raises(GoneError, match=r"GitHub Enterprise has its API below /api/v3: set api_base_url to http.*/api/v3$"):
        _ = api.facts
    api.close()
    for url in ("https://api.github.com", "https://ghe.lab.org/api/v3"):
        assert Api(url, REPO, TOKEN, Timing())._enterprise_hint() == ""


def test_a_server_that_hangs_up_or_stays_silent_is_told_apart(github: FakeGithub) -> None:
    api = Api(github.base_url, REPO, TOKEN, Timing(request_timeout_s=1))
    for how, words in (("cut", "connection closed"), ("hang", "timed out")):
        github.fault(how=how, path="/user")
        with pytest.raises(TransientError) as caught:
            api.request("GET", "/user", dict)
        assert words in str(caught.value) or "cut off" in str(caught.value)
        assert "object at" not in str(caught.value)
    api.close()


def test_causes_in_words() -> None:
    outer = RuntimeError("<HTTPSConnection object at 0x7f00> failed")
    outer.__cause__ = socket.gaierror(-2, "Name or service not known")
    assert cause_in_words(outer) == "name not resolved"
    long = cause_in_words(ValueError("word " * 100))
    assert long.startswith("ValueError: word")
    assert long.endswith("word…")
    assert len(long) <= 201
