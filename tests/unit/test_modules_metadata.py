"""The steps that ask the metadata service, against servers on loopback: whole ones, slow ones, broken ones."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from metadata_server import MetadataServer, broken_server

from pytest_openscope.config import PipelineEntry
from pytest_openscope.modules import ModuleContext, ModuleFailed, check_entries, run_entry
from pytest_openscope.modules.failures import StepTimedOut
from pytest_openscope.records.phases import Phase

SUBJECT = {"subject_id": "m 1/2", "species": "Mus musculus", "notes": "größer"}
PROJECTS = ["Ophys Platform - SLAP2", "OpenScope", "Brain Computer Interface"]
QUICK = {"metadata_service_retry_delay": 0.01}


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with MetadataServer() as one:
        yield one


class Session:
    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.answers: list[str] | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.context = ModuleContext({"subject_id": "m1", "user_id": "ada", "metadata_service_base_url": url}, folder)

    def ask(self, prompt: str, default: str | None = None) -> str:
        self.asked.append((prompt, default))
        assert self.answers is not None
        return self.answers.pop(0) or (default or "")

    def run(self, name: str, **parameters: Any) -> Any:
        entry = entry_of(name, **parameters)
        self.context.operator = None if self.answers is None else self  # type: ignore[assignment]
        run_entry(entry, self.context)

    def kept(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text("utf-8"))


def entry_of(name: str, **parameters: Any) -> Any:
    return PipelineEntry(
        name=name,
        phase=Phase.PRE_ACQUISITION,
        module_path=name,
        module_parameters=parameters,
        where="day1.json: pre_acquisition_pipeline[0]",
    )


@pytest.fixture
def session(tmp_path: Path, server: MetadataServer) -> Session:
    return Session(tmp_path, server.url)


# What the service says, is kept


@pytest.mark.parametrize("slash", ["", "/", "/base/path/"])
def test_the_subject_is_kept_as_the_service_has_it(session: Session, server: MetadataServer, slash: str) -> None:
    server.replies[f"{slash.rstrip('/')}/api/v2/subject/m%201%2F2"] = [(200, SUBJECT)]
    session.context.parameters["metadata_service_base_url"] += slash
    session.run(
        "metadata_subject_fetch", metadata_subject_id="m 1/2", metadata_subject_path=f"{session.folder}/in/subject.json"
    )
    assert session.kept("in/subject.json") == SUBJECT
    assert len(server.asked) == 1


def test_the_sessions_subject_and_an_older_address(session: Session, server: MetadataServer) -> None:
    server.replies = {"/api/v2/subject/614173": [(200, {"a": 1})], "/api/v2/procedures/614173": [(200, {"b": [2]})]}
    session.context.parameters = {"subject_id": 614173, "metadata_api_base_url": server.url}
    session.run("metadata_subject_fetch")
    session.run("metadata_procedures_fetch")
    assert (session.kept("subject.json"), session.kept("procedures.json")) == ({"a": 1}, {"b": [2]})


@pytest.mark.parametrize("body", [{"detail": [{"loc": "sex", "msg": "missing"}]}, b"validation failed"])
def test_a_refusal_is_a_warning_and_its_body_is_kept(
    session: Session, server: MetadataServer, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    server.replies["/api/v2/subject/m1"] = [(400, body)]
    session.run("metadata_subject_fetch")
    text = (session.folder / "subject.json").read_text("utf-8")
    assert text == "validation failed" if isinstance(body, bytes) else json.loads(text) == body
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "refuses the subject of m1 (status 400)" in record.message
    assert len(server.asked) == 1


def test_a_refusal_without_a_body_keeps_nothing(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/subject/m1"] = [(400, b"")]
    session.run("metadata_subject_fetch")
    assert list(session.folder.iterdir()) == []


def test_no_procedures_at_all_are_a_failure(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/procedures/m1"] = [(200, {})]
    with pytest.raises(ModuleFailed, match="no procedures of m1"):
        session.run("metadata_procedures_fetch")
    assert list(session.folder.iterdir()) == []


# What goes wrong


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((404, {"detail": "no such mouse"}), "answers with status 404: .*no such mouse"),
        ((401, b""), "answers with status 401: no body"),
        ((200, b"<html>login</html>"), "what is no JSON: '<html>login"),
        ((302, b"", {"Location": "ftp://elsewhere/"}), "No connection adapters"),
    ],
)
def test_what_another_attempt_would_not_mend_fails_at_once(
    session: Session, server: MetadataServer, reply: Any, words: str
) -> None:
    server.replies["/api/v2/subject/m1"] = [reply]
    with pytest.raises(ModuleFailed, match=words):
        session.run("metadata_subject_fetch", **QUICK)
    assert len(server.asked) == 1
    assert list(session.folder.iterdir()) == []


def test_a_busy_service_is_asked_again(session: Session, server: MetadataServer, caplog: pytest.LogCaptureFixture) -> None:
    server.replies["/api/v2/subject/m1"] = [(503, b"busy"), (429, b"", {"Retry-After": "0"}), (200, SUBJECT)]
    session.run("metadata_subject_fetch", **QUICK)
    assert session.kept("subject.json") == SUBJECT
    assert [record.message.partition(": ")[0] for record in caplog.records] == ["attempt 1", "attempt 2"]
    server.replies["/api/v2/subject/m1"] = [(500, b"boom")]
    server.asked.clear()
    with pytest.raises(ModuleFailed, match=r"status 500: boom \(4 attempts\)"):
        session.run("metadata_subject_fetch", metadata_service_retries=3, **QUICK)
    assert len(server.asked) == 4


def test_a_service_that_wants_an_hour_is_not_given_one(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/subject/m1"] = [(503, b"", {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(StepTimedOut, match="timeout_s"):
        session.run("metadata_subject_fetch", timeout_s=0.5)
    assert time.monotonic() - began < 20
    assert len(server.asked) == 1


def _silent(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(30)


def _dripping(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not stop.wait(0.05):
        connection.sendall(b" ")


def _dripping_headers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not stop.wait(0.05):
        connection.sendall(b"X-More: 1\r\n")


@pytest.mark.parametrize("serve", [_silent, _dripping, _dripping_headers])
def test_slow_servers_are_left_in_time(session: Session, serve: Any) -> None:
    with broken_server(serve) as (url, asked):
        began = time.monotonic()
        with pytest.raises(ModuleFailed, match=r"no whole answer within 0.3 s \(2 attempts\)"):
            session.run(
                "metadata_subject_fetch",
                metadata_service_base_url=url,
                metadata_service_timeout=0.3,
                metadata_service_retries=1,
                **QUICK,
            )
        with pytest.raises(StepTimedOut, match=r"took longer than 0.4 s \(timeout_s\)"):
            session.run("metadata_subject_fetch", metadata_service_base_url=url, timeout_s=0.4, **QUICK)
        assert time.monotonic() - began < 20
        assert len(asked) == 3


def _resets(connection: socket.socket, stop: threading.Event) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _breaks_off(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"subject_id": "m1"')


def _garbage(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(bytes(range(256)) * 10 + b"\r\n\r\n")


def _says_nothing(connection: socket.socket, stop: threading.Event) -> None:
    return


@pytest.mark.parametrize("serve", [_resets, _breaks_off, _garbage, _says_nothing])
def test_broken_servers_are_tried_again_and_named(session: Session, serve: Any) -> None:
    with broken_server(serve) as (url, asked):
        with pytest.raises(ModuleFailed, match=r"/api/v2/subject/m1: cannot be reached: .*\(3 attempts\)"):
            session.run("metadata_subject_fetch", metadata_service_base_url=url, **QUICK)
        assert len(asked) == 3
    assert list(session.folder.iterdir()) == []


def test_nobody_listens(session: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModuleFailed, match=r"cannot be reached: .*refused"):
        session.run("metadata_subject_fetch", metadata_service_base_url=f"http://127.0.0.1:{port}", **QUICK)


def test_an_answer_without_end_does_not_fill_the_memory(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openscope.modules.metadata_service._MOST_BYTES", 10 * 1024**2)

    def endless(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            connection.sendall(b" " * 100_000)

    with broken_server(endless) as (url, asked), pytest.raises(ModuleFailed, match="more than 10 MiB"):
        session.run("metadata_subject_fetch", metadata_service_base_url=url, **QUICK)
    assert len(asked) == 1


# Projects and protocols


def test_the_operator_confirms_project_protocol_and_name(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/project_names"] = [(200, PROJECTS)]
    session.answers = ["", "", "Ada Lovelace"]
    session.run("metadata_project_validator", metadata_project_name="ophys platform - slap2", protocol_id=2415)
    expected = {"project_name": PROJECTS[0], "protocol_id": "2415", "operator": "Ada Lovelace"}
    assert session.kept("project.json") == expected
    assert [default for _, default in session.asked] == ["ophys platform - slap2", "2415", "ada"]


def test_without_an_operator_what_is_given_counts(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/project_names"] = [(200, PROJECTS)]
    session.run("metadata_project_validator", projects=["OpenScope"], protocol_id=["p1", 2], metadata_project_path="a/p.json")
    assert session.kept("a/p.json") == {"project_name": "OpenScope", "protocol_id": ["p1", "2"], "operator": "ada"}
    with pytest.raises(ModuleFailed, match=r"no project 'Openscop': did you mean OpenScope\?"):
        session.run("metadata_project_validator", project_name="Openscop", protocol_id=1)
    with pytest.raises(ModuleFailed, match=r"no project is given: it has: Ophys"):
        session.run("metadata_project_validator", protocol_id=1)
    with pytest.raises(ModuleFailed, match="no protocol is given"):
        session.run("metadata_project_validator", project_name="OpenScope")


def test_the_operator_chooses_a_project_that_the_service_has(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/project_names"] = [(200, PROJECTS)]
    session.answers = ["Opnscope", "7", "", "still wrong", "openscope"]
    session.run("metadata_project_validator")
    assert session.kept("project.json") == {"project_name": "OpenScope", "protocol_id": "7", "operator": "ada"}
    assert "no project 'Opnscope' (did you mean OpenScope?)" in session.asked[3][0]
    session.answers = ["x", "7", "", *"abcde", "openscope"]
    with pytest.raises(ModuleFailed, match="no project of the service in 5 answers; the last: 'e'"):
        session.run("metadata_project_validator")


def test_a_refusal_to_name_projects_is_kept(session: Session, server: MetadataServer) -> None:
    server.replies["/api/v2/project_names"] = [(400, {"detail": "later"})]
    session.run("metadata_project_validator", project_name="Mine", protocol_id="p")
    kept = session.kept("project.json")
    assert kept == {"project_name": "Mine", "protocol_id": "p", "operator": "ada", "metadata_response": {"detail": "later"}}
    for content in ([], {"names": []}):
        server.replies["/api/v2/project_names"] = [(200, content)]
        with pytest.raises(ModuleFailed, match="names no projects"):
            session.run("metadata_project_validator", project_name="Mine", protocol_id="p")


def test_protocols_are_looked_up_one_by_one(session: Session, server: MetadataServer) -> None:
    server.replies = {"/api/v2/protocols/2415": [(200, {"name": "a"})], "/api/v2/protocols/x%3Fy": [(400, {"detail": "old"})]}
    session.run("metadata_protocol_validator", protocol_id=2415)
    assert session.kept("protocol.json") == {"name": "a"}
    session.answers = ["2415, x?y"]
    session.run("metadata_protocol_validator", metadata_protocol_name="2415")
    assert session.kept("protocol.json") == [{"name": "a"}, {"detail": "old"}]
    session.answers = None
    with pytest.raises(ModuleFailed, match="status 404"):
        session.run("metadata_protocol_validator", protocol_id=9)
    with pytest.raises(ModuleFailed, match="no protocol is given"):
        session.run("metadata_protocol_validator")


# Before the session


@pytest.mark.parametrize("url", ["metadata", "ftp://x/y", "http://", "http://host/?a=1", 5])
def test_a_wrong_address_is_a_mistake_before_the_session(url: Any) -> None:
    entries = [entry_of("metadata_subject_fetch", metadata_subject_pth="x")]
    for dry_run in (False, True):
        texts = [str(one) for one in check_entries(entries, parameters={"metadata_service_base_url": url}, dry_run=dry_run)]
        assert "did you mean metadata_subject_path?" in texts[0]
        assert "(parameters) metadata_service_base_url: " in texts[1]
        assert len(texts) == 2


def test_the_address_is_the_rigs_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    entries = [entry_of(name) for name in ("metadata_subject_fetch", "metadata_project_validator")]
    unknown: list[Any] = []
    assert check_entries(entries, dry_run=True, unknown=unknown) == []
    assert [one.key for one in unknown] == ["module_parameters.metadata_service_base_url"] * 2
    assert len(check_entries(entries)) == 2
    assert check_entries(entries, parameters={"metadata_service_base_url": "https://host/{rig_id}"}) == []
    session = Session(tmp_path)
    session.context.dry_run = True
    session.run("metadata_subject_fetch")
    assert caplog.messages == ["dry run: would ask the metadata service for the subject of m1 and keep it in subject.json"]
    session.context.dry_run = False
    with pytest.raises(ModuleFailed, match="metadata_service_base_url is missing"):
        session.run("metadata_subject_fetch")
