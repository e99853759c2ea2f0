"""``outbox`` and ``github-check`` as a user runs them."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.cli import main
from pytest_openscope.issues import sending
from pytest_openscope.issues.outbox import Ledger, list_reports
from pytest_openscope.issues.worker import check_access
from pytest_openscope.system.files import write_json

from .fake_github import REPO, FakeGithub
from .kit import TOKEN_ENV, Rig, failure
from .outgoing import TOKEN


@pytest.fixture
def server() -> Iterator[FakeGithub]:
    made = FakeGithub(time.time)
    yield made
    made.close()


def check(server: FakeGithub, *more: str) -> int:
    return main(["github-check", "--repo", REPO, "--token-env", TOKEN_ENV, "--api-base-url", server.base_url, *more])


def test_check_says_what_is_right_and_creates_nothing(
    server: FakeGithub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    assert check(server) == 0
    said = capsys.readouterr().out
    assert "rig-bot" in said
    assert "first report creates it" in said
    assert "sanitize_launcher_log to true (recommended)" in said
    assert {request.verb for request in server.requests} == {"GET"}


def test_check_as_json(server: FakeGithub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    server.repo["private"] = server.repo["push"] = False
    check(server, "--json")
    levels = {item["what"]: item["level"] for item in json.loads(capsys.readouterr().out)}
    assert levels["public"] == levels["permission"] == levels["label"] == "warning"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"path": "/user", "status": 401, "content": {"message": "Bad credentials"}}, "does not accept the token"),
        ({"path": "/repos/lab/rigs$", "status": 404, "content": {"message": "Not Found"}}, "may not see it"),
        ({"path": "/issues$", "status": 403, "content": {"message": "Resource not accessible"}}, "permission"),
        ({"status": 502, "times": 9}, "502"),
        (
            {"path": "/user", "status": 200, "content": {"login": "x"}, "headers": {"X-OAuth-Scopes": "gist, user"}},
            "has no scope",
        ),
        ({"how": "hang", "times": 9}, "no answer within"),
        ({"how": "drip", "times": 9}, "no answer within"),
    ],
)
def test_check_says_what_is_wrong_in_bounded_time(fault: dict[str, Any], said: str, server: FakeGithub) -> None:
    server.fault(**fault)
    limit_s = 0.5 if "how" in fault else 20.0
    began = time.monotonic()
    found = check_access({"repo": REPO, "api_base_url": server.base_url}, TOKEN, limit_s=limit_s)
    assert time.monotonic() - began < limit_s + 1.5
    assert any(said in item["text"] and item["level"] == "error" for item in found), found


def test_check_without_token(server: FakeGithub, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(server) == 1
    assert f"{TOKEN_ENV} holds no token" in capsys.readouterr().out
    assert server.requests == []


def test_check_needs_a_repository(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["github-check"]) == 4
    assert capsys.readouterr().err.startswith("ERROR: --rig-config: no rig configuration is given -> ")
    assert main(["github-check", "--rig-config", "missing.yaml"]) == 4
    said = capsys.readouterr().err
    assert said.startswith("ERROR: missing.yaml")
    assert "there is no such file" in said


def test_check_reads_the_rig_configuration(
    server: FakeGithub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = tmp_path / "rig.yaml"
    block = {"enabled": True, "repo": REPO, "token_env": TOKEN_ENV, "api_base_url": server.base_url}
    rig.write_text(json.dumps({"rig_id": "a", "output_root_folder": str(tmp_path), "github_issue": block}), encoding="utf-8")
    assert main(["github-check", "--rig-config", str(rig)]) == 0
    assert REPO in capsys.readouterr().out


def test_outbox_list_send_drop(
    server: FakeGithub,
    make_rig: Callable[..., Rig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rig = make_rig(api_base_url=server.base_url)
    state = ["--state-directory", str(rig.state)]
    assert main(["outbox", "list", *state]) == 0
    assert "nothing waits" in capsys.readouterr().out
    rig.clock._now = time.time()
    # The command comes back once nothing is due within its time, which a slow computer needs for the first attempt.
    monkeypatch.setattr(sending, "Timing", functools.partial(sending.Timing, settle_s=(600.0,)))
    (report,) = rig.fail()
    assert main(["outbox", *state]) == 0
    assert report["title"] in capsys.readouterr().out
    assert main(["outbox", "send", "--timeout", "60", *state]) == 1
    assert f"no token in {TOKEN_ENV}" in capsys.readouterr().out
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    assert main(["outbox", "send", "--timeout", "60", *state]) == 1
    said = capsys.readouterr().out
    assert "created  https://github.test/lab/rigs/issues/1" in said
    assert "1 left, the next one in" in said
    assert main(["outbox", "drop", *state]) == 4
    assert main(["outbox", "drop", report["id"][:6], *state]) == 0
    assert main(["outbox", "drop", "all", *state]) == 1


def test_outbox_send_says_at_once_what_it_does_and_does_not_sit_out_a_delay(
    server: FakeGithub, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig(api_base_url=server.base_url)
    rig.clock._now = time.time()
    rig.fail()
    rig.fail(failure("close_shutter", "close"))
    for path, report in list_reports(rig.state):
        report["state"].update(next_try=time.time() + 3600, attempts=5)
        write_json(path, report)
    server.fault(status=502, times=100)
    assert main(["outbox", "send", "--timeout", "60", "--state-directory", str(rig.state)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 wait; trying for at most 60 s (--timeout)"
    assert [line.split("  ")[1] for line in said[1:3]] == ["queued", "queued"]
    assert said[3].startswith("2 left, the next one in ")


def test_outbox_send_leaves_a_server_its_time(
    server: FakeGithub, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    rig = make_rig(api_base_url=server.base_url)
    rig.clock._now = time.time()
    rig.fail()
    ledger = Ledger(rig.state)
    ledger.delay(server.base_url, time.time() + 3600)
    ledger.save()
    assert main(["outbox", "send", "--timeout", "5", "--state-directory", str(rig.state)]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "1 waits; trying for at most 5 s (--timeout)"
    assert server.requests == []


def test_dropping_an_unsent_report_is_written_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    (report,) = rig.fail()
    assert main(["outbox", "drop", "all", "--state-directory", str(rig.state)]) == 0
    state = json.loads(Path(report["debug_state"]).read_text(encoding="utf-8"))
    assert (state["github"]["status"], state["github"]["reason"]) == ("refused", "dropped by hand")


def test_outbox_without_rig_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "list"]) == 4
    assert main(["outbox", "list", "--rig-config", "missing.yaml"]) == 4
    assert main(["outbox", "explode"]) == 4
    assert "explode" in capsys.readouterr().err
