"""Archiving to servers: a real S3 server (moto) and a real SFTP server (asyncssh), both on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_openscope.modules.archiving.engine import Archiver, Report
from pytest_openscope.modules.archiving.parameters import read_parameters
from pytest_openscope.modules.archiving.remote import RemoteTarget

moto_server = pytest.importorskip("moto.server")
asyncssh = pytest.importorskip("asyncssh")
s3fs = pytest.importorskip("s3fs")
pytest.importorskip("paramiko")

MB = 1024 * 1024


@dataclass
class Server:
    """A server that is a target: its URL, options, and what it holds, seen without our code."""

    kind: str
    url: str
    options: dict[str, Any]
    folder: Path | None = None
    s3: Any = None
    hits: list[str] = field(default_factory=list)

    def tree(self) -> dict[str, bytes]:
        if self.folder is not None:
            root = self.folder / "archive"
            return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="lab", Prefix="archive/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key.removeprefix("archive/"): self.s3.get_object(Bucket="lab", Key=key)["Body"].read() for key in keys}

    def put(self, name: str, data: bytes) -> None:
        if self.folder is not None:
            path = self.folder / "archive" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self.s3.put_object(Bucket="lab", Key=f"archive/{name}", Body=data)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    import boto3
    import requests

    monkeypatch.setenv("ARCHIVE_KEY", "testing")
    monkeypatch.setenv("ARCHIVE_SECRET", "hunter2")
    requests.post(f"{s3_endpoint}/moto-api/reset", timeout=10)
    client = boto3.client(
        "s3", endpoint_url=s3_endpoint, aws_access_key_id="x", aws_secret_access_key="y", region_name="us-east-1"
    )
    client.create_bucket(Bucket="lab")
    options = {"key": "env:ARCHIVE_KEY", "secret": "env:ARCHIVE_SECRET", "endpoint_url": s3_endpoint}
    return Server("s3", "s3://lab/archive", options, s3=client)


class _SftpServer:
    """asyncssh's SFTP server in a thread, with a folder as its root."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)

    async def _listen(self) -> None:
        class Server(asyncssh.SSHServer):
            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == ("lab", "hunter2")

        self._server = await asyncssh.create_server(
            Server,
            "127.0.0.1",
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(self.root)),
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ARCHIVE_PASSWORD", "hunter2")
    root = tmp_path / "server"
    root.mkdir()
    server = _SftpServer(root)
    options = {
        "username": "lab",
        "password": "env:ARCHIVE_PASSWORD",
        "port": server.port,
        "look_for_keys": False,
        "allow_agent": False,
    }
    yield Server("sftp", "sftp://127.0.0.1/archive", options, folder=root)
    server.stop()


@pytest.fixture(params=["s3", "sftp"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / "session"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "empty").write_text("")
    (folder / "deep" / "er" / ("ä 日本 #1.txt" if sys.platform == "win32" else "ä 日本 #1?.txt")).write_text("odd name")
    (folder / "big.bin").write_bytes(os.urandom(21 * MB))
    return folder


def run(session: Path, server: Server, **given: Any) -> Report:
    return Archiver(parameters(session, server, **given), may_change=lambda name: name.startswith("launcher_metadata/")).run()


def parameters(session: Path, server: Server, **given: Any) -> Any:
    places = {
        "network_dir": server.url,
        "network_storage_options": server.options,
        "backup_dir": str(session.parent / "backup"),
    }
    return read_parameters({**places, "retry_delay_s": 0.01, **given}, session)


def originals(session: Path) -> dict[str, bytes]:
    found = {path.relative_to(session).as_posix(): path.read_bytes() for path in session.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if "_manifest" not in name}


def test_every_file_arrives_and_is_read_back(session: Path, server: Server) -> None:
    report = run(session, server)
    assert report.problems == []
    assert (report.complete, report.copied) == (True, 8)
    assert server.tree() == originals(session)
    manifest = json.loads((session / "launcher_metadata/session_archiver_manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"]["big.bin"]["network_path"] == f"{server.url}/big.bin"
    assert "hunter2" not in json.dumps(manifest)
    again = run(session, server)
    assert (again.copied, again.already) == (0, 8)


def test_a_different_object_is_named_and_stays(session: Path, server: Server) -> None:
    server.put("a.txt", b"alphA")
    server.put("big.bin", b"short")
    server.put("empty", b"")
    report = run(session, server)
    assert {problem.name for problem in report.problems} == {"a.txt", "big.bin"}
    assert all("another file" in problem.reason for problem in report.problems)
    assert server.tree()["a.txt"] == b"alphA"
    assert server.tree()["big.bin"] == b"short"
    assert "empty" not in {problem.name for problem in report.problems}


def test_what_appears_between_the_look_and_the_write_is_not_overwritten(
    session: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_of = RemoteTarget.size_of

    def raced(self: RemoteTarget, name: str) -> int | None:
        found = size_of(self, name)
        if name == "a.txt" and found is None:
            server.put("a.txt", b"foreign")
        return found

    monkeypatch.setattr(RemoteTarget, "size_of", raced)
    report = run(session, server)
    assert [problem.name for problem in report.problems] == ["a.txt"]
    assert server.tree()["a.txt"] == b"foreign"


def test_what_the_server_garbles_is_found(session: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    garbled: list[str] = []
    settle = RemoteTarget.settle

    def garble(self: RemoteTarget, names: Any) -> None:
        names = list(names)
        settle(self, names)
        if "big.bin" in names and not garbled:
            garbled.append("big.bin")
            path = self._copy_path("", "big.bin").lstrip("/")
            server.put(path, b"\0" * len((session / "big.bin").read_bytes()))

    monkeypatch.setattr(RemoteTarget, "settle", garble)
    assert run(session, server).complete
    assert garbled
    assert server.tree() == originals(session)


def test_a_record_that_has_grown_is_renewed(session: Path, server: Server) -> None:
    log = session / "launcher_metadata" / "launcher.log"
    log.parent.mkdir()
    log.write_bytes(b"one\n")
    assert run(session, server).complete
    log.write_bytes(b"one\ntwo\n")
    assert run(session, server).complete
    assert server.tree()["launcher_metadata/launcher.log"] == b"one\ntwo\n"


CHILD = """
import sys, json
from pathlib import Path
from pytest_openscope.modules.archiving.engine import Archiver
from pytest_openscope.modules.archiving.parameters import read_parameters
print(json.dumps(Archiver(read_parameters(json.loads(sys.argv[2]), Path(sys.argv[1]))).run().as_json()))
"""


@pytest.mark.timeout(600)  # 93 MB, of which a server in Python under Wine takes less than 1 MB/s
def test_a_kill_in_the_middle_leaves_nothing_half_under_its_name(session: Path, server: Server) -> None:
    for number in range(6):
        (session / f"more{number}").write_bytes(os.urandom(12 * MB))
    places = {"network_dir": server.url, "network_storage_options": server.options, "copy_to_backup": False, "workers": 1}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(session), json.dumps(places)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    journal = session / "launcher_metadata" / "session_archiver_manifest.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"copy") >= 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "the copies were made before the kill"
    process.kill()
    process.wait()
    expected = originals(session)
    for name, data in server.tree().items():
        assert ".partial" in name or expected[name] == data
    report = Archiver(read_parameters(places, session)).run()
    assert report.complete
    assert report.already >= 2
    assert server.tree() == expected


def test_a_server_that_is_not_there_costs_nothing_of_the_other_copy(session: Path, sftp: Server) -> None:
    options = {**sftp.options, "port": 1}
    report = run(session, sftp, network_storage_options=options, max_retries=0)
    assert {problem.place for problem in report.problems} == {"network"}
    assert len(report.problems) == 4
    backup = session.parent / "backup"
    assert {
        path.relative_to(backup).as_posix(): path.read_bytes() for path in backup.rglob("*") if path.is_file()
    } == originals(session)


def test_wrong_credentials_and_unset_variables_are_named(session: Path, sftp: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_PASSWORD", "wrong")
    report = run(session, sftp, max_retries=0)
    assert "AuthenticationException" in str(report.problems[0])
    monkeypatch.delenv("ARCHIVE_PASSWORD")
    report = run(session, sftp, max_retries=0)
    assert "the environment variable ARCHIVE_PASSWORD is not set" in str(report.problems[0])


def test_a_bucket_that_is_missing_is_named(session: Path, s3: Server) -> None:
    report = run(session, s3, network_dir="s3://nobody/here", max_retries=0)
    assert "bucket does not exist" in str(report.problems[0])


def test_a_protocol_without_driver_names_the_extra(session: Path, s3: Server) -> None:
    report = run(session, s3, network_dir="nosuch://host/x", network_storage_options={}, max_retries=0)
    assert "nosuch" in str(report.problems[0])
