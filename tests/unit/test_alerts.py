"""Alerts reach a real HTTP server and a real mail server, once, and their addresses reach nothing else."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("apprise", reason="the extra 'alerts' is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from sidecar_kit import HOW_KILLED, Run, Start, eventually

from pytest_openscope.sidecar import alerts
from pytest_openscope.sidecar.link import start_finisher

ALL = {"on": ["failed", "crashed", "waiting"], "after_s": 0.5, "include_subject_user": False}


class Inbox:
    """An HTTP server that takes apprise's ``json://``; ``answer`` gives the status of each message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.tried = 0
        self.answer: Any = lambda: 200
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.tried += 1
                status = inbox.answer()
                if status == 200:
                    inbox.messages.append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"json://tok3n-of-the-lab@127.0.0.1:{self._server.server_address[1]}/h00k-path"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.messages]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    one = Inbox()
    yield one
    one.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def ended(run: Run) -> Run:
    run.wait()
    return run.finished()


def everything(run: Run) -> bytes:
    """Every byte that the session, its sidecar and the rig's state hold."""
    root = run.folder.parent
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_failed_session_is_told_once(start: Start, inbox: Inbox) -> None:
    plan = [["ready"], ["failure", "the lick spout of mouse1 is stuck"], ["end", "failed"]]
    run = ended(start(*plan, alerts=ALL, alert_urls=[inbox.url], session_uuid="mouse1_2026-05-01_09-30-00", host="scope-pc"))
    (message,) = inbox.messages
    assert message["title"] == "rig1: the session ended as failed"
    assert message["type"] == "failure"
    assert "Session <subject>_2026-05-01_09-30-00 on scope-pc" in message["message"]
    assert "the lick spout of <subject> is stuck" in message["message"]
    assert b"tok3n-of-the-lab" not in everything(run)
    assert b"h00k-path" not in everything(run)
    start_finisher(run.folder, [], [inbox.url])
    assert eventually(run.sidecars)
    run.wait_gone()
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("outcome", ["passed", "interrupted"])
def test_a_good_session_is_not_told(start: Start, inbox: Inbox, outcome: str) -> None:
    ended(start(["ready"], ["end", outcome], alerts=ALL, alert_urls=[inbox.url]))
    assert not inbox.tried


def test_what_is_not_asked_for_is_not_told(start: Start, inbox: Inbox) -> None:
    ended(
        start(
            ["ready"],
            ["ask", "well?"],
            ["sleep", 1.0],
            ["end", "failed"],
            alerts={**ALL, "on": ["crashed"]},
            alert_urls=[inbox.url],
        )
    )
    assert not inbox.tried


def test_a_process_that_died_is_told(start: Start, inbox: Inbox) -> None:
    ended(start(["ready"], ["step", "acquisition", "video"], ["die"], alerts=ALL, alert_urls=[inbox.url]))
    assert inbox.titles == ["rig1: the session's process or the computer died"]
    assert HOW_KILLED in inbox.messages[0]["message"]


def test_a_crash_that_took_the_sidecar_too_is_told_by_the_next_session(start: Start, inbox: Inbox) -> None:
    from pytest_openscope.sidecar.recovery import recover

    run = start(["die"], sidecar=False, alerts=ALL)
    run.wait()
    assert recover(run.folder.parent / "state", run.folder.parent, alert_urls=[inbox.url])
    run.finished()
    assert inbox.titles == ["rig1: the session's process or the computer died"]


def test_a_question_that_waits_is_told_once_while_it_waits(start: Start, inbox: Inbox, tmp_path: Path) -> None:
    gate = tmp_path / "answered"
    began = time.monotonic()
    plan = [
        ["ready"],
        ["ask", "is the animal in?"],
        ["wait_for", str(gate)],
        ["answer"],
        ["ask", "and now?"],
        ["answer"],
        ["end"],
    ]
    run = start(*plan, alerts=ALL, alert_urls=[inbox.url])
    assert eventually(lambda: inbox.messages)
    assert time.monotonic() - began > 0.5
    assert run.process.poll() is None
    time.sleep(0.6)  # long enough for a second one, if there were any
    gate.touch()
    ended(run)
    assert inbox.titles == ["rig1: a question waits for an answer"]
    assert "is the animal in?" in inbox.messages[0]["message"]
    assert inbox.messages[0]["type"] == "warning"


def test_a_question_answered_in_time_is_not_told(start: Start, inbox: Inbox) -> None:
    plan = [["ready"], ["ask", "is the animal in?"], ["answer"], ["sleep", 1.0], ["end"]]
    ended(start(*plan, alerts=ALL, alert_urls=[inbox.url]))
    assert not inbox.tried


def test_a_server_that_is_away_for_a_moment_is_tried_again_and_the_others_are_not(start: Start, inbox: Inbox) -> None:
    other = Inbox()
    answers = iter([503])
    other.answer = lambda: next(answers, 200)
    ended(start(["ready"], ["end", "failed"], alerts=ALL, alert_urls=[inbox.url, other.url]))
    assert (other.tried, len(other.messages)) == (2, 1)
    assert (inbox.tried, len(inbox.messages)) == (1, 1)
    other.close()


def test_a_hung_server_holds_up_neither_the_session_nor_the_other_addresses(start: Start, inbox: Inbox) -> None:
    hung = Inbox()
    hung.answer = lambda: time.sleep(60) or 200  # type: ignore[func-returns-value]
    began = time.monotonic()
    run = start(["ready"], ["end", "failed"], alerts=ALL, alert_urls=[hung.url, inbox.url])
    assert run.wait() == 0
    assert run.told[-1]["done"] is True
    assert time.monotonic() - began < 45
    assert eventually(lambda: inbox.messages)
    run.kill_sidecars()
    hung.close()


def test_an_address_that_refuses_is_named_by_its_kind_only(monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> None:
    """The sender itself, with its waits shortened: what is said of an address never holds it."""
    monkeypatch.setattr(alerts, "RETRY_AFTER_S", ())
    attempt_s = 5 if sys.platform != "win32" else 30  # a process for each attempt, which starts slowly there
    monkeypatch.setattr(alerts, "ATTEMPT_S", float(attempt_s))
    inbox.answer = lambda: 401
    hung = Inbox()
    hung.answer = lambda: time.sleep(60) or 200  # type: ignore[func-returns-value]
    said: list[str] = []
    view: Any = type("View", (), {"value": lambda self, key, default=None: {"alerts": ALL}.get(key, default)})()
    journal: Any = type("Journal", (), {"write": lambda self, event, **fields: said.append(f"{event} {fields['part']}")})()
    sender = alerts.Alerts(
        view, journal, [inbox.url, f"{hung.url}?rto=60"], [], lambda level, text, logger, terminal: said.append(text)
    )
    sender._deliver("alert failed", {"title": "title", "body": "body", "kind": "failure"})
    assert said == [
        "alert failed: not sent to json (address 1 of 2): not reached, or refused",
        f"alert failed: not sent to json (address 2 of 2): no answer within {attempt_s} s",
        "witness_done alert failed",
    ]
    hung.close()


def test_mail_arrives_at_a_real_mail_server(start: Start) -> None:
    pytest.importorskip("aiosmtpd")
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    mails: list[tuple[list[str], bytes]] = []
    logins: list[Any] = []

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            mails.append((envelope.rcpt_tos, envelope.content))
            return "250 OK"

    def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        logins.append(data.password)
        return AuthResult(success=data.password == b"s3cr3t-of-mail")

    controller = Controller(
        Handler(), hostname="127.0.0.1", port=free_port(), authenticator=login, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        url = f"mailto://rig:s3cr3t-of-mail@127.0.0.1:{controller.port}?from=rig@lab.example&to=ada@lab.example&mode=insecure"
        run = ended(start(["ready"], ["failure", "no light"], ["end", "error"], alerts=ALL, alert_urls=[url]))
    finally:
        controller.stop()
    ((to, content),) = mails
    assert to == ["ada@lab.example"]
    mail = message_from_bytes(content, policy=policy.default)
    assert mail["Subject"] == "rig1: the session ended as error"
    body: Any = mail.get_body(("plain", "html"))
    assert "no light" in body.get_content()
    assert set(logins) == {b"s3cr3t-of-mail"}
    assert b"s3cr3t-of-mail" not in everything(run)
    assert b"ada@lab.example" not in everything(run)
