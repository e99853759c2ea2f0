"""The handshake between PCs, against the launcher's side of it and against all that can go wrong on a network."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launcher_sync import Connection, LauncherMaster, launcher_slave, line, tcp_pair

from pytest_openscope.session.handshake import Joined, Sync, SyncError, gather, join
from pytest_openscope.session.node_wire import MAX_LINE_BYTES, Channel, Garbage, Gone

KEY, NAME = "mouse123", "mouse123_2026-01-02_03-04-05"
MEGABYTE = 1_000_000


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Lab:
    """Runs each side in a thread of its own, and closes what they made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.told: list[str] = []
        self.pool = ThreadPoolExecutor(16)
        self._joined: list[Future[Joined]] = []

    def sync(self, role: str, **changes: Any) -> Sync:
        given: dict[str, Any] = {
            "node_name": role,
            "key": KEY,
            "port": self.port,
            "bind_host": "127.0.0.1",
            "master_host": "127.0.0.1",
            "expected_slaves": 1,
            "timeout_s": 20.0,
            "ack_timeout_s": 10.0,
            "retry_delay_s": 0.05,
            "silence_s": 5.0,
            "program": "pytest-openscope",
        }
        return Sync(**{**given, **changes})

    def tell(self, level: str, text: str) -> None:
        self.told.append(text)

    def master(self, slaves: int = 1, **changes: Any) -> Future[Joined]:
        future = self.pool.submit(gather, self.sync("master", expected_slaves=slaves, **changes), NAME, self.tell)
        self._joined.append(future)
        return future

    def slave(self, name: str = "camera", refusal: Callable[[str], str] = lambda name: "", **changes: Any) -> Future[Joined]:
        future = self.pool.submit(join, self.sync("slave", node_name=name, **changes), refusal, self.tell)
        self._joined.append(future)
        return future

    def connect(self, timeout_s: float = 10.0) -> Connection:
        """Connect to a master that may not listen yet."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return Connection(socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s), timeout_s)
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        for future in self._joined:
            if future.exception() is None:
                for peer in future.result().peers:
                    peer.channel.close()


@pytest.fixture
def lab(port: int) -> Iterator[Lab]:
    lab = Lab(port)
    yield lab
    lab.close()


HELLO = line(session_key=KEY, state="ready", role="slave", node_name="camera")
READY = b'{"session_key":"mouse123","state":"ready","role":"slave","node_name":"camera"}\n'
ACK = b'{"status":"ack","session_name":"mouse123_2026-01-02_03-04-05","node_name":"camera"}\n'
COMPLETE = b'{"status":"complete","session_name":"mouse123_2026-01-02_03-04-05"}\n'


# -- with the launcher


def test_slaves_with_the_launcher_follow_our_master(lab: Lab) -> None:
    master = lab.master(2)
    slaves = [lab.pool.submit(launcher_slave, lab.port, KEY, name) for name in ("camera", "ephys")]
    for slave in slaves:
        name, lines = slave.result(20)
        assert name == NAME
        announcement = json.loads(lines[0])
        own = announcement.pop("openscope")
        assert own["version"] == 1
        assert list(announcement.items()) == [
            ("status", "announce"),
            ("session_key", KEY),
            ("session_name", NAME),
            ("expected_slaves", 2),
            ("master", "master"),
        ]
        assert lines[1:] == [COMPLETE]
    joined = master.result(20)
    assert joined.peers == []
    assert {(node.name, node.program, node.state) for node in joined.others} == {
        ("camera", "launcher", "unknown"),
        ("ephys", "launcher", "unknown"),
    }


def test_our_slave_is_the_launchers_to_a_master_with_the_launcher(lab: Lab) -> None:
    master = LauncherMaster(lab.port, KEY, NAME)
    slave = lab.slave()
    assert master.run() == [[READY, ACK]]
    joined = slave.result(20)
    assert (joined.session_name, joined.peers) == (NAME, [])
    assert [(node.name, node.role, node.state) for node in joined.others] == [("launcher-pc", "master", "unknown")]


def test_a_key_that_is_no_ascii_and_a_name_that_is_none(lab: Lab) -> None:
    master = lab.master(key="Mäuse 7")
    assert lab.pool.submit(launcher_slave, lab.port, "Mäuse 7", "Kamera ü").result(20)[0] == NAME
    assert [node.name for node in master.result(20).others] == ["Kamera ü"]


def test_ours_and_the_launchers_mixed(lab: Lab) -> None:
    master = lab.master(3)
    ours = [lab.slave("camera"), lab.slave("camera")]
    theirs = lab.pool.submit(launcher_slave, lab.port, KEY, "ephys")
    assert theirs.result(20)[0] == NAME
    joined = master.result(20)
    assert sorted(node.name for node in joined.others) == ["camera", "camera[2]", "ephys"]
    assert sorted(peer.name for peer in joined.peers) == ["camera", "camera[2]"]
    for one in ours:
        assert one.result(20).session_name == NAME
        assert [peer.is_ours for peer in one.result(20).peers] == [True]


def test_no_slave_is_expected(lab: Lab) -> None:
    assert lab.master(0).result(5).others == []


# -- what a master meets


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "binary": bytes(range(256)) + b"\n",
    "list": b"[1, 2]\n",
    "number": b"7\n",
    "deep": b"[" * 100_000 + b"\n",
    "empty": b"\n",
    "huge number": b"1" * 100_000 + b"\n",
    "no utf-8": b'{"session_key": "\xff"}\n',
    "other state": line(session_key=KEY, state="asleep", role="slave", node_name="x"),
    "another master": line(session_key=KEY, state="ready", role="master", node_name="x"),
    "nothing": b"",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_master_refuses_garbage_and_waits_on(lab: Lab, what: str) -> None:
    master = lab.master()
    intruder = lab.connect()
    intruder.socket.sendall(GARBAGE[what])
    if what == "nothing":
        intruder.close()
    else:
        answer = intruder.socket.makefile("rb").readline()
        assert not answer or json.loads(answer)["reason"] in ("invalid_message", "invalid_state")
    assert not master.done()
    slave = lab.slave()
    assert slave.result(20).session_name == NAME
    assert [node.name for node in master.result(20).others] == ["camera"]
    until(lambda: any("was refused" in text for text in lab.told))


def test_a_wrong_key_is_told_on_both_sides_and_the_right_one_still_comes(lab: Lab) -> None:
    master = lab.master()
    with pytest.raises(SyncError, match=r"session key is not 'mouse124' -> give both PCs the same subject"):
        lab.slave("wrong", key="mouse124").result(5)
    until(lambda: "refused: wrong has the session key 'mouse124', this master 'mouse123'" in "\n".join(lab.told))
    launcher = lab.connect()
    launcher.socket.sendall(line(session_key=7, state="ready", role="slave", node_name="x"))
    assert launcher.next() == {"status": "error", "reason": "session_key_mismatch"}
    lab.slave().result(20)
    assert master.result(20).session_name == NAME


def sent_before_the_end(connection: Connection, chunk: bytes, most: int, pause_s: float = 0.0) -> int:
    """Send until the other side has had enough; return how often that went well."""
    for number in range(most):
        try:
            connection.socket.sendall(chunk)
        except ConnectionError:
            return number
        time.sleep(pause_s)
    return most


def test_a_message_of_100_mb_is_refused_before_it_has_come(lab: Lab) -> None:
    master = lab.master()
    intruder = lab.connect()
    assert sent_before_the_end(intruder, b"x" * MEGABYTE, 100) < 20, "it was read"
    until(lambda: f"more than {MAX_LINE_BYTES:,} bytes" in "\n".join(lab.told))
    lab.slave().result(20)
    assert master.result(20).session_name == NAME


def test_a_silent_connection_holds_up_nobody(lab: Lab) -> None:
    master = lab.master()
    silent = [lab.connect() for _ in range(100)]
    began = time.monotonic()
    lab.slave().result(20)
    master.result(20)
    assert time.monotonic() - began < 15
    for one in silent:
        assert one.socket.recv(1) == b"", "it was left open"
        one.close()


def test_a_crowd_of_strangers_that_talk_at_once(lab: Lab) -> None:
    """More than may wait, so that one is refused to make room in the very moment in which it says something."""
    master = lab.master()
    crowd = [lab.connect() for _ in range(60)]
    for one in crowd:
        one.socket.sendall(b"G")
    late = [lab.connect() for _ in range(60)]
    for one in (*crowd, *late):
        with contextlib.suppress(OSError):
            one.socket.sendall(b"ET / HTTP/1.1\r\n")
    lab.slave().result(20)
    assert master.result(20).session_name == NAME
    for one in (*crowd, *late):
        one.close()
    assert sum("was refused" in text for text in lab.told) <= 5, "the same is told once"


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "no such host"])
def test_a_host_that_is_none(lab: Lab, host: str) -> None:
    with pytest.raises(SyncError, match=f"session_sync_bind_host '{host}'.* -> give an address of this PC"):
        lab.master(bind_host=host).result(20)
    with pytest.raises(SyncError, match=rf"session_sync_master_host '{host}' is no host name|no master at {host}"):
        lab.slave(master_host=host, timeout_s=0.2).result(20)


def test_one_that_drips_is_refused_in_time(lab: Lab) -> None:
    master = lab.master(ack_timeout_s=0.4)
    slow = lab.connect()
    assert sent_before_the_end(slow, b" ", 100, 0.05) < 30
    until(lambda: "said nothing for 0.4 s" in "\n".join(lab.told))
    lab.slave().result(20)
    master.result(20)


def test_a_slave_that_leaves_again_does_not_count(lab: Lab) -> None:
    master = lab.master(3)
    lab.slave("stays")
    gone = lab.connect()
    gone.socket.sendall(line(session_key=KEY, state="ready", role="slave", node_name="goes"))
    until(lambda: any("goes" in text and "is here" in text for text in lab.told))
    # Reset, as by a PC that is started anew.
    gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    until(lambda: any("goes" in text and "has left again" in text for text in lab.told))
    lab.slave("comes")
    lab.slave("too")
    assert sorted(node.name for node in master.result(20).others) == ["comes", "stays", "too"]


def test_slaves_that_do_not_come_are_missed_by_name_and_number(lab: Lab) -> None:
    master = lab.master(2, timeout_s=1.0)
    slave = lab.slave(timeout_s=1.5)
    with pytest.raises(SyncError, match=r"1 of 2 slaves came within 1 s .*: camera \(127.0.0.1\) -> start the other PCs"):
        master.result(10)
    with pytest.raises(SyncError, match="ended the handshake: 1 of 2 slaves came within 1 s"):
        slave.result(10)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "did not acknowledge the session's name within 1 s"),
        (line(status="ack", session_name="another", node_name="x"), "in place of an acknowledgement"),
        (line(status="error", reason="the disk is full"), "cannot take part: the disk is full"),
        (b"what?\n", "fell out of the handshake: it sent no JSON object"),
        (b"", "fell out of the handshake: it closed the connection"),
    ],
)
def test_a_slave_that_does_not_acknowledge_ends_it_for_all(lab: Lab, answer: bytes | None, words: str) -> None:
    master = lab.master(2, ack_timeout_s=1.0)
    good = lab.slave("good")
    bad = lab.connect()
    bad.socket.sendall(line(session_key=KEY, state="ready", role="slave", node_name="bad"))
    assert bad.next()["status"] == "announce"
    if answer == b"":
        bad.close()
    elif answer is not None:
        bad.socket.sendall(answer)
    with pytest.raises(SyncError, match=words):
        master.result(10)
    with pytest.raises(SyncError, match=rf"ended the handshake: bad .*{words}"):
        good.result(10)


def test_two_masters_on_a_port(lab: Lab) -> None:
    first = lab.master()
    until(lambda: lab.told)
    with pytest.raises(SyncError, match=rf"cannot listen on 127\.0\.0\.1:{lab.port} as master: .* -> end the other master"):
        lab.master().result(5)
    with pytest.raises(SyncError, match=r"cannot listen on 0\.0\.0\.0"):
        lab.master(bind_host="0.0.0.0").result(5)
    lab.slave().result(20)
    first.result(20)


def test_an_address_that_is_not_this_computers(lab: Lab) -> None:
    with pytest.raises(SyncError, match=r"192\.0\.2\.1"):
        lab.master(bind_host="192.0.2.1").result(5)


# -- what a slave meets


def test_a_slave_waits_for_its_master(lab: Lab) -> None:
    slave = lab.slave()
    until(lambda: any("no master" in text for text in lab.told))
    lab.master().result(20)
    assert slave.result(20).session_name == NAME
    assert sum("no master" in text for text in lab.told) == 1, "the same is told once"


def test_a_late_slave_is_told_that_the_session_may_have_begun(lab: Lab) -> None:
    master = lab.master()
    lab.slave().result(20)
    master.result(20)
    with pytest.raises(SyncError, match=r"within 0.5 s .*refused.*has begun without this PC does not listen any more"):
        lab.slave("late", timeout_s=0.5).result(10)


def fake_master(port: int, answers: list[bytes | None]) -> threading.Thread:
    """Accept connections one after the other; answer the hello of each, None keeps silent until the slave goes."""
    listener = socket.create_server(("127.0.0.1", port))

    def run() -> None:
        with listener:
            for answer in answers:
                connection = Connection(listener.accept()[0], 20)
                try:
                    connection.next()
                    if answer is None:
                        connection.socket.recv(1)
                    else:
                        connection.socket.sendall(answer)
                        connection.socket.shutdown(socket.SHUT_WR)
                        connection.socket.recv(1)
                except OSError:
                    pass
                connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


ANNOUNCE = line(status="announce", session_key=KEY, session_name=NAME, expected_slaves=1, master="m")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak the session protocol: it sent no JSON object"),
        (b"x" * 100 * MEGABYTE, "a message of more than 262,144 bytes"),
        (line(status="complete", session_name=NAME), "in place of the session's name"),
        (line(status="error", reason="invalid_state"), "ended the handshake: invalid_state"),
        (None, "did not send the session's name within 0.5 s"),
        (ANNOUNCE, "broke off after it had announced"),
        (ANNOUNCE + line(status="error", reason="ephys failed"), "ended the handshake: ephys failed"),
    ],
)
def test_a_slave_of_a_strange_master(lab: Lab, answer: bytes | None, words: str) -> None:
    fake_master(lab.port, [answer])
    began = time.monotonic()
    with pytest.raises(SyncError, match=words):
        lab.slave(ack_timeout_s=0.5).result(15)
    assert time.monotonic() - began < 10


def test_a_master_that_falls_over_and_comes_back(lab: Lab) -> None:
    thread = fake_master(lab.port, [b""])
    slave = lab.slave()
    thread.join(10)
    assert lab.master().result(20).session_name == NAME
    assert slave.result(20).session_name == NAME


def test_a_name_that_the_slave_cannot_take_is_refused_by_all(lab: Lab) -> None:
    master = lab.master(2)
    good = lab.slave("good")
    full = lab.slave("full", lambda name: f"the session folder {name} exists")
    with pytest.raises(SyncError, match="cannot take: the session folder"):
        full.result(10)
    with pytest.raises(SyncError, match=rf"full .* cannot take part: the session folder {NAME} exists"):
        master.result(10)
    with pytest.raises(SyncError, match="cannot take part"):
        good.result(10)


def test_a_master_nobody_knows(lab: Lab) -> None:
    with pytest.raises(SyncError, match=r"no master at no-such-host.invalid"):
        lab.slave(master_host="no-such-host.invalid", timeout_s=0.3).result(20)


# -- frames


def send_on_and_on(channel: Channel) -> None:
    for _ in range(1000):
        channel.send({"x": "y" * 50_000})


def test_frames_may_come_in_any_pieces() -> None:
    left, right = tcp_pair()
    channel = Channel(right)
    for number in HELLO:
        left.sendall(bytes([number]))
        found = channel.receive()
    assert found == [json.loads(HELLO)]
    left.sendall(HELLO * 3)
    assert channel.receive() == [json.loads(HELLO)] * 3
    assert channel.receive() == []
    left.close()
    with pytest.raises(Gone, match="it closed the connection"):
        channel.receive()
    channel.close()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none(), st.booleans()))))
def test_what_is_sent_is_what_comes(messages: list[dict[str, Any]]) -> None:
    left, right = tcp_pair()
    sender, receiver = Channel(left), Channel(right)
    try:
        for message in messages:
            sender.send(message)
        found: list[Any] = []
        deadline = time.monotonic() + 10
        while len(found) < len(messages):
            assert time.monotonic() < deadline
            found += receiver.receive()
        assert found == messages
    finally:
        sender.close()
        receiver.close()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(), st.sampled_from([HELLO, b"\n", b"{", b"}", b"[", b'"', b"\\u", b"\xff", b"1e999"]))))
def test_whatever_comes_is_a_message_or_garbage(pieces: list[bytes]) -> None:
    left, right = tcp_pair()
    channel = Channel(right)
    left.sendall(b"".join(pieces))
    left.shutdown(socket.SHUT_WR)
    with pytest.raises((Gone, Garbage), match=r"it closed the connection|no JSON object"):
        read_to_the_end(channel)
    left.close()
    channel.close()


def read_to_the_end(channel: Channel) -> None:
    while True:
        assert all(isinstance(message, dict) for message in channel.receive())


def test_the_longest_line_and_one_byte_more() -> None:
    for extra in (0, 1):
        left, right = tcp_pair()
        channel = Channel(right)
        text = b'{"a":"' + b"x" * (MAX_LINE_BYTES - 8 + extra) + b'"}'
        sender = threading.Thread(target=left.sendall, args=(text + b"\n",))
        sender.start()
        found: list[Any] = []
        try:
            while not found:
                found = channel.receive()
        except Garbage:
            assert extra
        else:
            assert not extra
        left.close()
        channel.close()
        sender.join(5)


def test_somebody_who_does_not_read_is_given_up() -> None:
    left, right = tcp_pair()
    channel = Channel(right)
    with pytest.raises(Gone, match="does not read"):
        send_on_and_on(channel)
    left.close()
    channel.close()


def until(what: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.005)
