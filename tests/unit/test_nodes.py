"""What nodes know of each other after the handshake: real sockets on loopback, each node with its own thread."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from launcher_sync import Connection, launcher_slave, line

from pytest_openscope.session.handshake import Joined, Sync, gather, join
from pytest_openscope.session.node_wire import Node
from pytest_openscope.session.nodes import Nodes

KEY, NAME = "mouse123", "session-7"
SILENCE_S = 1.0


class One:
    """A node and all that it heard."""

    def __init__(self, joined: Joined, silence_s: float = SILENCE_S) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.times: dict[tuple[str, str, str], float] = {}
        self.joined = joined
        self.nodes = Nodes(joined, silence_s, self._on_change, lambda table: None)
        self.nodes.begin()

    def _on_change(self, before: Node, node: Node) -> None:
        what = (node.name, node.state, node.fault)
        self.heard.append(what)
        self.times.setdefault(what, time.monotonic())

    def seen(self, name: str) -> Node:
        return next(node for node in self.nodes.table if node.name == name)

    def wait_for(self, name: str, state: str = "", fault: str = "", timeout_s: float = 10.0) -> None:
        until(
            lambda: any(n == name and (not state or s == state) and (not fault or f == fault) for n, s, f in self.heard),
            timeout_s,
        )

    def die(self) -> None:
        """Let the system close the sockets, as it does for a killed process."""
        for peer in self.joined.peers:
            peer.channel.leave = peer.channel.close  # type: ignore[method-assign]
        self.nodes.leave()


def until(what: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(StopIteration):  # a node that the others have not told of yet
            if what():
                return
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.005)


class Lab:
    """Brings nodes together, and fake ones that the test itself speaks for."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        self.nodes: list[One] = []

    def meet(self, *slaves: str, fakes: int = 0, launchers: int = 0) -> tuple[list[One], list[Connection]]:
        """Return the master and the slaves, and the connections of ``fakes`` that have said that they are ours."""
        joined: dict[str, Joined] = {}

        def run(name: str, action: Callable[[], Joined]) -> None:
            joined[name] = action()

        def tell(level: str, text: str) -> None:
            return

        def sync(name: str) -> Sync:
            count = len(slaves) + fakes + launchers
            return Sync(name, KEY, self.port, "127.0.0.1", "127.0.0.1", count, 20, 10, 0.02, SILENCE_S, "ours")

        threads = [threading.Thread(target=run, args=("master", lambda: gather(sync("master"), NAME, tell)))]
        threads += [
            threading.Thread(target=run, args=(name, lambda name=name: join(sync(name), lambda _: "", tell))) for name in slaves
        ]
        threads += [threading.Thread(target=launcher_slave, args=(self.port, KEY, f"launcher{n}")) for n in range(launchers)]
        for thread in threads:
            thread.start()
        connections = [self._fake_hello(number) for number in range(fakes)]
        for connection in connections:
            self._fake_acknowledgement(connection)
        for thread in threads:
            thread.join(20)
        found = [One(joined[name]) for name in ("master", *slaves)]
        self.nodes += found
        return found, connections

    def _fake_hello(self, number: int) -> Connection:
        while True:
            try:
                connection = Connection(socket.create_connection(("127.0.0.1", self.port), timeout=20), 20)
                break
            except OSError:
                time.sleep(0.01)
        connection.socket.sendall(line(session_key=KEY, state="ready", role="slave", node_name=f"fake{number}"))
        return connection

    def _fake_acknowledgement(self, connection: Connection) -> None:
        connection.next()
        own = {"version": 1, "silence_s": SILENCE_S, "program": "a fake", "of_the_future": [1]}
        connection.socket.sendall(line(status="ack", session_name=NAME, node_name="fake", openscope=own))
        assert connection.next() == {"status": "complete", "session_name": NAME}

    def close(self) -> None:
        for one in self.nodes:
            one.nodes.leave()


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_all_start_together_when_the_last_one_is_ready(lab: Lab) -> None:
    nodes, _ = lab.meet("camera", "ephys")
    began: dict[int, float] = {}

    def wait(number: int) -> None:
        assert nodes[number].nodes.wait_for_start(20) == []
        began[number] = time.monotonic()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    for number in (1, 0):
        threads[number].start()
    nodes[2].wait_for("camera", "ready")
    nodes[2].wait_for("master", "ready")
    assert not began
    last = time.monotonic()
    threads[2].start()
    for thread in threads:
        thread.join(10)
    assert max(began.values()) - last < 0.5
    assert max(began.values()) - min(began.values()) < 0.2
    for one in nodes:
        until(lambda one=one: {node.state for node in one.nodes.table} == {"acquiring"})


def test_who_is_not_ready_in_time_is_named(lab: Lab) -> None:
    (master, camera), _ = lab.meet("camera")
    assert master.nodes.wait_for_start(0.3) == ["camera"]
    # It comes later all the same, and finds the others there.
    assert camera.nodes.wait_for_start(5) == []


def test_nobody_waits_for_one_that_has_failed(lab: Lab) -> None:
    (master, camera, ephys), _ = lab.meet("camera", "ephys")
    camera.nodes.say(fault="failed", reason="no light")
    assert master.nodes.wait_for_start(0.2) == ["ephys"]
    began = time.monotonic()
    assert ephys.nodes.wait_for_start(20) == []
    assert time.monotonic() - began < 15


def test_a_failure_is_told_at_once_to_all(lab: Lab) -> None:
    (master, camera, ephys), _ = lab.meet("camera", "ephys")
    said = time.monotonic()
    camera.nodes.say(fault="failed", reason="the laser is on fire")
    for one in (master, ephys):
        one.wait_for("camera", fault="failed")
        assert one.times[("camera", "preparing", "failed")] - said < 0.3
        until(lambda one=one: one.seen("camera").reason == "the laser is on fire")
    said = time.monotonic()
    master.nodes.say(fault="stopped", reason="Ctrl-C")
    for one in (camera, ephys):
        one.wait_for("master", fault="stopped")
        assert one.times[("master", "preparing", "stopped")] - said < 0.3


def test_a_failure_of_a_node_that_was_not_known_before_is_told(lab: Lab) -> None:
    """The table of the master is the first that is heard of it."""
    (_, camera), _ = lab.meet("camera")
    late = Node("late", "slave", state="preparing", fault="failed", reason="the laser is on fire")
    camera.nodes._change(late)
    camera.wait_for("late", "preparing", "failed")


def test_a_failure_is_heard_though_the_end_follows_at_once(lab: Lab) -> None:
    (_, camera, ephys), _ = lab.meet("camera", "ephys")
    camera.nodes.say(fault="failed", reason="why")
    camera.nodes.say(state="ended", outcome="failed")
    ephys.wait_for("camera", "ended", "failed")


def test_all_have_the_same_table_of_outcomes(lab: Lab) -> None:
    nodes, _ = lab.meet("camera", "ephys", launchers=1)
    for one, outcome in zip(nodes, ("passed", "failed", "passed"), strict=True):
        one.nodes.say(state="ended", outcome=outcome, session_folder=f"/data/{outcome}")
    for one in nodes:
        assert one.nodes.wait_for_ends(10, lambda: False) == []
        one.nodes.leave()
    first, second, third = (one.nodes.table for one in nodes)
    assert first == second == third
    assert [(node.name, node.role, node.outcome) for node in first] == [
        ("master", "master", "passed"),
        ("camera", "slave", "failed"),
        ("ephys", "slave", "passed"),
        ("launcher0", "slave", None),
    ]


def test_the_last_to_end_lets_the_first_go(lab: Lab) -> None:
    """Who leaves first must not take the last outcome with it: again and again, since it is a race."""
    for _ in range(40):
        nodes, _ = lab.meet("camera")
        found: dict[int, tuple[Node, ...]] = {}

        def end(number: int, nodes: list[One] = nodes, found: dict[int, tuple[Node, ...]] = found) -> None:
            nodes[number].nodes.say(state="ended", outcome="passed")
            nodes[number].nodes.wait_for_ends(10, lambda: False)
            nodes[number].nodes.leave()
            found[number] = nodes[number].nodes.table

        threads = [threading.Thread(target=end, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found[0] == found[1]
        assert [node.outcome for node in found[0]] == ["passed", "passed"]


def test_a_wait_for_the_end_is_bounded_and_can_be_ended(lab: Lab) -> None:
    (master, _), _ = lab.meet("camera")
    began = time.monotonic()
    assert master.nodes.wait_for_ends(0.3, lambda: False) == ["camera"]
    assert master.nodes.wait_for_ends(30, lambda: True) == ["camera"]
    assert time.monotonic() - began < 15


def test_a_dead_slave_is_lost_for_all(lab: Lab) -> None:
    (master, camera, ephys), _ = lab.meet("camera", "ephys")
    camera.die()
    for one in (master, ephys):
        one.wait_for("camera", "lost")
        until(lambda one=one: one.seen("camera").reason == "it closed the connection")
    assert master.nodes.wait_for_ends(0, lambda: False) == ["ephys"]


def test_a_dead_master_is_lost_and_the_rest_unknown(lab: Lab) -> None:
    (master, camera, ephys), _ = lab.meet("camera", "ephys")
    master.die()
    for one, other in ((camera, "ephys"), (ephys, "camera")):
        one.wait_for("master", "lost")
        one.wait_for(other, "unknown")
        assert one.nodes.wait_for_ends(10, lambda: False) == []
        assert one.nodes.wait_for_start(5) == [], "nobody is left to wait for"


def test_a_master_that_ends_first_is_not_lost(lab: Lab) -> None:
    (master, camera), _ = lab.meet("camera")
    master.nodes.say(state="ended", outcome="passed")
    master.nodes.wait_for_ends(0, lambda: False)
    master.nodes.leave()
    camera.wait_for("master", "ended")
    time.sleep(0.3)
    assert camera.seen("master").state == "ended"


def test_a_half_open_connection_is_silent_and_may_come_back(lab: Lab) -> None:
    (master, camera), (fake,) = lab.meet("camera", fakes=1)
    began = time.monotonic()
    camera.wait_for("fake0", "silent")
    assert SILENCE_S * 0.8 < time.monotonic() - began < SILENCE_S + 2
    until(lambda: "nothing was heard of it for 1 s" in camera.seen("fake0").reason)
    # Those that have nothing to say do say that they live.
    assert camera.seen("master").state == master.seen("camera").state == "preparing"
    fake.socket.sendall(line(node={"name": "fake0", "state": "acquiring"}))
    camera.wait_for("fake0", "acquiring")


@pytest.mark.parametrize(
    "said",
    [
        b"garbage\n",
        b"x" * 100_000_000,
        line(node=7),
        line(node={"state": "ended"}),
        line(nodes=[]),
        b"[" * 200_000 + b"\n",
    ],
    ids=["garbage", "100 MB", "number", "no name", "no node", "deep"],
)
def test_a_node_that_talks_garbage_is_lost(lab: Lab, said: bytes) -> None:
    (master, camera), (fake,) = lab.meet("camera", fakes=1)
    sender = threading.Thread(target=_send, args=(fake, said))
    sender.start()
    for one in (master, camera):
        one.wait_for("fake0", "lost", timeout_s=5)
        until(lambda one=one: one.seen("fake0").reason.startswith("it sent "))
    sender.join(10)
    camera.nodes.say(fault="failed")
    master.wait_for("camera", fault="failed")


def _send(connection: Connection, data: bytes) -> None:
    try:
        connection.socket.sendall(data)
    except OSError:
        return


def test_a_node_that_reads_nothing_stops_nobody(lab: Lab) -> None:
    (master, camera), (fake,) = lab.meet("camera", fakes=1)
    for number in range(200):
        camera.nodes.say(reason=f"{number:0400}")
        fake.socket.sendall(line(node={"name": "fake0", "state": "preparing", "reason": "x" * number}))
    camera.nodes.say(fault="failed")
    master.wait_for("camera", fault="failed")


def test_a_node_cannot_speak_for_another_one(lab: Lab) -> None:
    (master, camera), (fake,) = lab.meet("camera", fakes=1)
    fake.socket.sendall(line(node={"name": "camera", "role": "master", "state": "acquiring", "fault": "failed", "x": 1}))
    master.wait_for("fake0", fault="failed")
    camera.wait_for("fake0", fault="failed")
    assert master.seen("camera").fault == ""
    assert master.seen("fake0").role == "slave"


def test_what_a_master_tells(lab: Lab) -> None:
    _, (fake,) = lab.meet(fakes=1)
    message = fake.next()
    assert message["you"] == "fake0"
    assert message["started"] is False
    assert [node["name"] for node in message["nodes"]] == ["master", "fake0"]
    assert json.loads(json.dumps(message)) == message


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_fork_does_not_keep_a_dead_node_alive(lab: Lab) -> None:
    (master, camera), _ = lab.meet("camera")
    held, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        os.read(held, 1)
        os._exit(0)
    os.close(held)
    try:
        camera.die()
        master.wait_for("camera", "lost", timeout_s=SILENCE_S * 0.8)
    finally:
        os.close(let_go)
        os.waitpid(child, 0)


def test_it_can_be_said_in_a_signal_handler(lab: Lab) -> None:
    import signal

    (master, camera), _ = lab.meet("camera")
    before = signal.signal(signal.SIGINT, lambda *_: camera.nodes.say(fault="stopped", reason="Ctrl-C"))
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    master.wait_for("camera", fault="stopped")


def test_what_others_say_cannot_play_with_the_terminal(lab: Lab) -> None:
    (master, camera), (fake,) = lab.meet("camera", fakes=1)
    evil = "\x1b[2J\x07one\r\ntwo\ud800" + "x" * 5000
    fake.socket.sendall(line(node={"name": "fake0", "state": "acquiring", "reason": evil}))
    for one in (master, camera):
        until(lambda one=one: one.seen("fake0").reason)
        reason = one.seen("fake0").reason
        assert reason.startswith("?[2J?one two?xxx")
        assert len(reason) == 500
        assert reason.isprintable()
