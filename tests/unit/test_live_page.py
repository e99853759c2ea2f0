"""The live page's server on made-up session folders, over real HTTP on loopback; its process is the real one."""

from __future__ import annotations

import errno
import http.client
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import urlsplit

import psutil
import pytest
from windows_limits import wine_version

from pytest_openscope.log import LogFollower
from pytest_openscope.log.lines import encode_record
from pytest_openscope.records import Journal, take
from pytest_openscope.system import create_time
from pytest_openscope.views.live import LiveServer, missing_packages, parse_address
from pytest_openscope.views.live.content import LOG_BYTES, LiveSession

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def wait_for(check: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found


class Folder:
    """A session folder as a running session writes it; the experiment's process is ``pid``."""

    def __init__(self, path: Path, pid: int | None = None) -> None:
        self.path = path
        self.metadata = path / "launcher_metadata"
        self.metadata.mkdir(parents=True)
        self.log_path = self.metadata / "launcher.log"
        self.log("session began")
        self.journal = Journal(self.metadata / "journal.jsonl")
        pid = pid or os.getpid()
        facts = {"session_uuid": path.name, "subject_id": "m7", "user_id": "ada", "rig_id": "bench", "dry_run": False}
        started = "2026-03-04T09:00:00+00:00"
        self.journal.write("session", **facts, started=started, pid=pid, create_time=create_time(pid))

    def log(self, *texts: str, level: str = "INFO") -> None:
        with open(self.log_path, "ab") as stream:
            stream.write(b"".join(encode_record(level, "lab", text, "acquisition", "test_it") for text in texts))

    def step(self, name: str = "test_it") -> None:
        self.journal.write("step_started", step=name, phase="acquisition", kind="test", started="2026-03-04T09:00:01+00:00")


class Stream:
    """One browser's events, read by a thread from a socket of its own."""

    def __init__(self, url: str) -> None:
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self.connection.request("GET", f"{parts.path}events")
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        self.headers = self.response.headers
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        kind = ""
        try:
            for raw in self.response:
                line = raw.decode("utf-8").rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    self.events.put((kind, json.loads(line[6:])))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass
        self.events.put(("closed", None))

    def until(self, wanted: Callable[[str, Any], Any], timeout_s: float = 100.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            kind, data = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            if found := wanted(kind, data):
                return data if found is True else found
            assert kind != "closed"

    def session(self, **wanted: Any) -> Any:
        """Return the session's state once it has these values."""
        return self.state(lambda state: all(state[key] == value for key, value in wanted.items()))

    def state(self, fits: Callable[[Any], Any]) -> Any:
        def found(kind: str, data: Any) -> Any:
            state = data["session"] if kind == "reset" else data if kind == "session" else None
            return state if state and fits(state) else None

        return self.until(found)


class Page:
    """A page that is served, with whoever posts to it."""

    def __init__(self, folder: Path, linger_s: float = 60.0) -> None:
        server = LiveServer("127.0.0.1", 0)
        self.url = server.url
        self.ended: list[int] = []
        self.pid = server.start(folder, self.ended.append, linger_s=linger_s)
        parts = urlsplit(self.url)
        self.host, self.port, self.path = "127.0.0.1", int(parts.port or 0), parts.path
        self.token = parts.path.strip("/")
        self.streams: list[Stream] = []

    def look(self) -> Stream:
        self.streams.append(Stream(self.url))
        return self.streams[-1]

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        found = answer.status, answer.headers, answer.read()
        connection.close()
        return found

    def post(self, what: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {"Content_Type": "application/json", "Origin": f"http://{self.host}:{self.port}", **headers}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = self.get(self.path + what, "POST", data, **{key: value for key, value in sent.items() if value})
        return status, json.loads(answer) if answer.startswith(b"{") else {}

    def close(self) -> None:
        for stream in self.streams:
            # The descriptor itself: a thread is reading from the response.
            stream.connection.sock and stream.connection.sock.close()
        try:
            process = psutil.Process(self.pid)
            process.kill()
        except psutil.NoSuchProcess:
            pass


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "m7_2026")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def serve(folder: Folder, **options: Any) -> Page:
        pages.append(Page(folder.path, **options))
        return pages[-1]

    yield serve
    for page in pages:
        page.close()


@pytest.fixture
def sidecar(folder: Folder) -> Iterator[list[dict[str, Any]]]:
    """What the session's helper process takes from the inbox."""
    taken: list[dict[str, Any]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            taken.extend(take(folder.path))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield taken
    stop.set()
    thread.join()


def test_a_browser_sees_what_was_and_what_comes(folder: Folder, serve: Any) -> None:
    folder.step()
    page = serve(folder)
    early = page.look()
    whole = early.until(lambda kind, data: data if kind == "reset" else None)
    assert (whole["session"]["status"], whole["session"]["subject_id"]) == ("running", "m7")
    assert [one["step"] for one in whole["steps"]] == ["test_it"]
    assert [row[5] for row in whole["log"]["rows"]] == ["session began"]
    folder.log("größer\nsecond line", level="WARNING")
    row = early.until(lambda kind, data: data["rows"][0] if kind == "log" else None)
    assert row[1:] == ["WARNING", "acquisition", "test_it", "lab", "größer\nsecond line"]
    folder.journal.write("kept", field="failures", values=[{"step": "test_it", "message": "the camera is gone"}])
    assert early.session(failures=["test_it: the camera is gone"])
    folder.journal.write("attempt_ended", step="test_it", phase="acquisition", attempt={})
    folder.journal.write("step_finished", step="test_it", phase="acquisition", outcome="failed", skipped="", duration_s=1.5)
    step = early.until(lambda kind, data: data if kind == "step" and data.get("ended") else None)
    assert (step["index"], step["outcome"], step["duration_s"], step["attempts"]) == (0, "failed", 1.5, 2)
    sample = {"timestamp": "2026-03-04T09:00:05+00:00", "launcher": {"cpu_percent": 3.5, "memory_mb": 60}, "acquisition": None}
    sample["system"] = {"disk": {"free_gb": 80.5}}
    (folder.metadata / "resource_usage.json").write_text(f"[\n{json.dumps(sample)}\n]\n")
    (drawn,) = early.until(lambda kind, data: data if kind == "samples" else None)
    assert drawn == {**drawn, "cpu_percent": [3.5, None], "memory_mb": [60, None], "free_gb": [80.5, None]}
    late = page.look().until(lambda kind, data: data if kind == "reset" else None)
    assert (len(late["log"]["rows"]), len(late["steps"]), late["samples"]) == (2, 1, [drawn])


def test_what_people_say_goes_through_the_inbox(folder: Folder, serve: Any, sidecar: list[dict[str, Any]]) -> None:
    page = serve(folder)
    assert page.post("note", {"text": "sneezed: größer"}) == (200, {"taken": True})
    assert page.post("answer", {"question": "q1", "text": "x"})[0] == 409
    stream = page.look()
    folder.journal.write("question", id="q1", text="Weight?", kind="text", default="", picture="")
    assert stream.state(lambda state: state["question"])["question"]["text"] == "Weight?"
    assert page.post("answer", {"question": "q0", "text": "x"})[0] == 409
    assert page.post("answer", {"question": "q1", "text": "24\r\n5"})[0] == 200
    folder.journal.write("answered", id="q1", by="the terminal", text="25")
    assert stream.state(lambda state: state["answered"])["answered"] == [
        {"id": "q1", "question": "Weight?", "answer": "25", "by": "the terminal"}
    ]
    folder.journal.write("question", id="q2", text="Notes:", kind="lines", default="", picture="")
    stream.state(lambda state: state["question"])
    assert page.post("answer", {"question": "q2", "text": "one\ntwo"})[0] == 200
    folder.journal.write("answered", id="q2", by="", text="")
    folder.journal.write("question", id="q3", text="Good?", kind="confirm", default="", picture="attachments/stack.tif")
    assert stream.state(lambda state: state["question"] and state["question"]["id"] == "q3")["question"] == {
        **{"id": "q3", "text": "Good? (picture: attachments/stack.tif)", "kind": "confirm", "default": "", "picture": ""},
        "at": ANY,
    }
    assert sidecar == [
        {"type": "note", "text": "sneezed: größer"},
        {"type": "answer", "question": "q1", "text": "24 5"},
        {"type": "answer", "question": "q2", "text": "one\ntwo\n"},
    ]


def test_two_browsers_that_stop_for_one_reason_stop_once(folder: Folder, serve: Any, sidecar: list[dict[str, Any]]) -> None:
    page = serve(folder)
    stream = page.look()
    assert stream.session(stops=0)
    codes = [page.post("stop", {"stops": 0})[0], page.post("stop", {"stops": 0})[0]]
    assert codes == [200, 409]
    assert stream.session(stops=1)
    assert page.post("stop", {"stops": 1})[0] == 200
    assert sidecar == [{"type": "stop"}] * 2


def test_nobody_who_takes_it_is_told(folder: Folder, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = serve(folder)
    status, answer = page.post("stop", {"stops": 0})
    assert (status, "did not take it" in answer["problem"]) == (503, True)
    assert list((folder.metadata / "inbox").iterdir()) == []
    assert page.look().session(stops=0)


class TestWhoMayDoWhat:
    """Only who knows the token sees anything; only the page itself changes anything; only the session's pictures are served."""

    def test_get_changes_nothing_and_no_other_origin_does(
        self, folder: Folder, serve: Any, sidecar: list[dict[str, Any]]
    ) -> None:
        page = serve(folder)
        for what in ("note", "answer", "stop"):
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
                assert page.get(page.path + what, method)[0] == 405
        body = {"text": "x", "stops": 0}
        for origin in ("http://evil.example", "null", "", f"https://127.0.0.1:{page.port}", "http://127.0.0.1:1"):
            for what in ("note", "stop"):
                assert page.post(what, body, Origin=origin)[0] == 403
        # A name of the attacker's that leads to this computer.
        assert page.post("stop", body, Host="evil.example", Origin="http://evil.example")[0] == 404
        _, headers, _ = page.get(page.path, Origin="http://evil.example")
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert sidecar == []

    def test_nonsense_is_refused(self, folder: Folder, serve: Any, sidecar: list[dict[str, Any]]) -> None:
        page = serve(folder)
        assert page.post("note", b"{")[0] == 400
        assert page.post("note", b"[" * 30_000)[0] == 400
        assert page.post("note", [1])[0] == 400
        assert page.post("note", {"text": 7})[0] == 400
        assert page.post("note", {"text": " \n"})[0] == 400
        assert page.post("note", b"x" * 100_000)[0] == 413
        assert page.post("stop", {"stops": True})[0] == 409
        assert page.post("note", {"text": "lone \ud800 surrogate"})[0] == 200
        assert wait_for(lambda: sidecar) == [{"type": "note", "text": "lone ? surrogate"}]

    def test_without_the_token_there_is_nothing(self, folder: Folder, serve: Any) -> None:
        page = serve(folder)
        wrong = page.token[:-1] + ("A" if page.token[-1] != "A" else "B")
        for path in (
            "/",
            "/events",
            f"/{wrong}/",
            f"/{wrong}/events",
            f"/?token={page.token}",
            "/%00/",
            f"/{page.token}%C3%A9/",
        ):
            status, _, body = page.get(path)
            assert (status, page.token.encode() in body) == (404, False)
        connections = {one.laddr.ip for one in psutil.Process(page.pid).net_connections() if one.status == "LISTEN"}
        # Wine does not tell which process holds a port.
        assert connections == ({"127.0.0.1"} if wine_version() is None else set())

    def test_only_named_pictures_of_the_session(self, folder: Folder, serve: Any, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(b"secret")
        (folder.path / "eye 1.png").write_bytes(PNG)
        (folder.path / "unnamed.png").write_bytes(PNG)
        (folder.path / "table.csv").write_text("a")
        (folder.path / "link.png").symlink_to(tmp_path / "secret.png")
        names = ["eye 1.png", "table.csv", "link.png", "../secret.png", str(tmp_path / "secret.png"), "gone.png"]
        folder.journal.write("kept", field="attachments", values=names)
        page = serve(folder)
        assert page.look().session(attachments=[name for name in names if name.endswith(".png")])
        status, headers, body = page.get(f"{page.path}picture/eye%201.png")
        assert (status, headers["Content-Type"], body) == (200, "image/png", PNG)
        assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        others = ["unnamed.png", "table.csv", "link.png", "../secret.png", "..%2fsecret.png", "%2e%2e/secret.png", "gone.png"]
        others += [str(tmp_path / "secret.png"), "launcher_metadata/journal.jsonl", "..\\secret.png", ""]
        for name in others:
            status, _, body = page.get(f"{page.path}picture/{name}")
            assert (status, b"secret" in body) == (404, False), name

    def test_the_token_is_in_no_log_no_command_line_and_no_referer(self, folder: Folder, serve: Any) -> None:
        page = serve(folder)
        status, headers, body = page.get(page.path)
        assert (status, headers["Referrer-Policy"], headers["Cache-Control"]) == (200, "no-referrer", "no-store")
        policy = headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert page.token.encode() not in body
        page.get(page.path + "picture/gone.png")
        page.get(page.path + "nowhere")
        with socket.create_connection((page.host, page.port)) as broken:
            broken.sendall(f"GET {page.path} HTP/9\r\nnonsense\r\n\r\n".encode())
            broken.recv(1000)
        assert page.look().headers["Referrer-Policy"] == "no-referrer"
        process = psutil.Process(page.pid)
        assert page.token not in " ".join(process.cmdline())
        assert page.token not in json.dumps(process.environ())
        for path in folder.path.rglob("*"):
            assert not path.is_file() or page.token.encode() not in path.read_bytes(), path


class TestEndings:
    """The page outlives the experiment and says what became of it; then it goes."""

    def test_a_killed_experiment(self, tmp_path: Path, serve: Any) -> None:
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        folder = Folder(tmp_path / "m7_2026", victim.pid)
        folder.journal.write("question", id="q1", text="Weight?", kind="text", default="", picture="")
        page = serve(folder)
        stream = page.look()
        assert stream.session(status="running")["question"]
        victim.kill()
        victim.wait()
        died = stream.session(status="died")
        assert (died["question"], died["outcome"]) == (None, {})
        assert page.post("note", {"text": "x"}) == (409, {"problem": "the session is over"})
        witness = Journal(folder.metadata / "witness.jsonl")
        witness.write("died", exit_code=-9)
        witness.write("death", failure={"step": "test_it", "message": "ended by SIGKILL"})
        witness.write("ended", outcome="crashed", exit_code=-9, by="sidecar")
        told = stream.session(outcome={"outcome": "crashed", "exit_code": -9})
        assert (told["status"], told["failures"]) == ("died", ["test_it: ended by SIGKILL"])

    def test_it_goes_when_the_session_is_over_and_nobody_looks(self, folder: Folder, serve: Any) -> None:
        page = serve(folder, linger_s=0.2)
        stream = page.look()
        stream.session(status="running")
        folder.journal.write("ending", outcome="passed")
        stream.session(status="ending")
        folder.journal.write("ended", outcome="passed", exit_code=0)
        assert stream.session(status="ended")["outcome"] == {"outcome": "passed", "exit_code": 0}
        time.sleep(1.0)
        assert page.ended == []  # Somebody looks.
        stream.connection.sock.shutdown(socket.SHUT_RDWR)
        assert wait_for(lambda: page.ended) == [0]

    def test_it_goes_at_once_with_a_session_that_was_taken_back(self, folder: Folder, serve: Any) -> None:
        page = serve(folder)
        page.look().session(status="running")
        folder.journal.write("discarded")
        assert wait_for(lambda: page.ended) == [0]


def test_a_browser_that_hangs_costs_the_others_nothing(folder: Folder, serve: Any) -> None:
    """It takes nothing, while far more comes than the system keeps for it; memory stays, and the others see all."""
    page = serve(folder)
    hanging = socket.socket()
    hanging.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    hanging.connect((page.host, page.port))
    hanging.sendall(f"GET {page.path}events HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode())
    others = [page.look() for _ in range(10)]
    for one in others:
        one.session(status="running")
    before = psutil.Process(page.pid).memory_info().rss
    for number in range(16):
        folder.log(*(f"record {number} {part} {'x' * 900}" for part in range(250)))
        folder.log(f"mark {number}")
        for one in others:
            one.until(lambda kind, data, number=number: kind == "log" and data["rows"][-1][5] == f"mark {number}")
    grown = psutil.Process(page.pid).memory_info().rss - before
    assert grown < 60e6
    hanging.close()


def test_a_burst_is_cut_not_kept(folder: Folder) -> None:
    session = LiveSession(folder.path)
    session.read()
    folder.log(*(f"record {number} {'x' * 100}" for number in range(20_000)), "last")
    (log,) = [data for kind, data in session.read() if kind == "log"]
    assert log["rows"][-1][5] == "last"
    assert len(log["rows"]) < 20_000
    written = folder.log_path.stat().st_size
    assert written - LOG_BYTES - 200 < log["left_out"] <= written - LOG_BYTES


def test_the_follower_gives_whole_records_only(tmp_path: Path) -> None:
    path = tmp_path / "launcher.log"
    follower = LogFollower(path)
    assert follower.read(1000) == []
    data = b"".join(encode_record("INFO", "lab", text) for text in ("one", "two\nlines\n☃", "three"))
    found = []
    for number in range(len(data)):
        with open(path, "ab") as stream:
            stream.write(data[number : number + 1])
        found += follower.read(1000)
    assert [(entry.message, entry.offset) for entry in found] == [
        ("one", 0),
        ("two\nlines\n☃", data.index(b"\n") + 1),
        ("three", data.rindex(b"\n", 0, -1) + 1),
    ]
    path.write_bytes(encode_record("INFO", "lab", "anew"))
    assert [entry.message for entry in follower.read(1000)] == ["anew"]


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("", ("127.0.0.1", 0)),
            ("0", ("127.0.0.1", 0)),
            ("8080", ("127.0.0.1", 8080)),
            ("0.0.0.0:80", ("0.0.0.0", 80)),
            ("[::1]:7", ("::1", 7)),
        ],
    )
    def test_what_may_be_given(self, text: str, address: tuple[str, int]) -> None:
        assert parse_address(text) == address

    @pytest.mark.parametrize("text", ["test_x.py", "65536", "-1", "localhost", "localhost:", "x:y", "²"])
    def test_what_may_not(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no port"):
            parse_address(text)

    def test_the_address_tells_who_can_reach_it(self) -> None:
        for host, local in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
            server = LiveServer(host, 0)
            server.close()
            assert server.is_local is local
            assert re.fullmatch(r"http://[^/]+:\d+/[\w-]{43}/", server.url)
        assert missing_packages() == []

    def test_a_port_that_is_taken(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError) as refused:
                LiveServer("127.0.0.1", taken.getsockname()[1])
            assert refused.value.errno == errno.EADDRINUSE
