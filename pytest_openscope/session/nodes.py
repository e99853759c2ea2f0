"""What the PCs of a session know of each other from the handshake to the end.

A slave sends ``{"node": …}``, what it knows of itself, and the master ``{"nodes": […], "you": name, "started": …}``, what it
knows of all; each at every change, and again as a sign of life. Both say all that there is, so that no message depends on the
one before.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ..system import on_fork
from .handshake import Joined, Peer
from .node_wire import LINGER_S, SLICE_S, Garbage, Gone, Node, short

#: Signs of life within the time after which a node counts as silent.
_BEATS = 5
#: How often the thread looks whether this node has something to say.
_LOOK_S = 0.02


class Nodes:
    """The connections that the handshake has left, in one thread that never waits for a network. The master is the hub.

    All state belongs to the thread; others read :attr:`me`, :attr:`others` and :attr:`table`, and leave what they have to say
    in :meth:`say`, which may be called in a signal handler.

    Args:
        joined: the handshake's result.
        silence_s: after so long without a word another node counts as silent.
        on_change: called in the thread with what a node was and is now, when another node's state or fault has changed.
        on_table: called in the thread with the new table.
    """

    def __init__(
        self,
        joined: Joined,
        silence_s: float,
        on_change: Callable[[Node, Node], None],
        on_table: Callable[[tuple[Node, ...]], None],
    ) -> None:
        #: This node, as the others see it.
        self.me = joined.me
        self._others = {node.name: node for node in joined.others}
        self._peers = list(joined.peers)
        self._silence_s = silence_s
        self._on_change = on_change
        self._on_table = on_table
        self._beat_s = min([silence_s, *(peer.silence_s for peer in self._peers)]) / _BEATS
        self._said: deque[dict[str, Any]] = deque()
        self._started = threading.Event()
        self._leaving = threading.Event()
        #: All nodes, the master first.
        self.table: tuple[Node, ...] = self._all()
        self._thread = threading.Thread(target=self._run, name="openscope-nodes", daemon=True)

    # -- for the session's threads

    def begin(self) -> None:
        on_fork(self, Nodes.close)
        self._thread.start()

    @property
    def others(self) -> list[Node]:
        return [node for node in self.table if node.name != self.me.name]

    def say(self, **changes: Any) -> None:
        """Tell all nodes what has changed on this one: fields of :class:`.node_wire.Node`."""
        self._said.append(changes)

    def wait_for_start(self, timeout_s: float) -> list[str]:
        """Say that this node is ready, and wait until all are; return those that were not in time."""
        self.say(state="ready")
        deadline = time.monotonic() + timeout_s
        while not self._started.wait(SLICE_S):
            if time.monotonic() > deadline or not self._thread.is_alive():
                return [node.name for node in self.others if node.state == "preparing" and not node.fault]
        return []

    def wait_for_ends(self, timeout_s: float, enough: Callable[[], bool]) -> list[str]:
        """Wait until all others have ended, or nothing more can be heard of them; return those that have not."""
        deadline = time.monotonic() + timeout_s
        while self._thread.is_alive():
            going_on = [node.name for node in self.others if not node.is_over]
            if not going_on or time.monotonic() > deadline or enough():
                return going_on
            time.sleep(0.02)
        return []

    def leave(self) -> None:
        """Say the last words, close all connections, and end the thread."""
        self._leaving.set()
        if self._thread.ident is not None:
            self._thread.join(LINGER_S * (len(self._peers) + 1))

    def close(self) -> None:
        """Give the connections up; in a fork, whose copies would keep them open after this node has died."""
        for peer in self._peers:
            peer.channel.close()

    # -- the thread

    def _run(self) -> None:
        next_beat = time.monotonic()
        sent: tuple[Node, ...] = ()
        for peer in list(self._peers):
            self._hear(peer)  # what came together with the handshake's last message
        while not (self._leaving.is_set() and not self._said):
            for peer in self._speaking(max(0.0, min(_LOOK_S, next_beat - time.monotonic()))):
                self._hear(peer)
            while self._said:
                self.me = replace(self.me, **self._said.popleft())
            self._look_for_silence()
            self._perhaps_start()
            if (table := self._all()) != sent or time.monotonic() >= next_beat:
                sent, next_beat = table, time.monotonic() + self._beat_s
                self._send_all()
            for peer in list(self._peers):
                self._try(peer, peer.channel.flush)
            # Seen by this node only now: who leaves because all have ended must have told the others.
            if (table := self._all()) != self.table:
                self.table = table
                self._on_table(table)
        for peer in self._peers:
            peer.channel.leave()

    def _all(self) -> tuple[Node, ...]:
        return tuple(sorted((self.me, *self._others.values()), key=lambda node: (node.role != "master", node.name)))

    def _speaking(self, timeout_s: float) -> list[Peer]:
        if not self._peers:
            time.sleep(timeout_s)
            return []
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
            return [key.data for key, _ in selector.select(timeout_s)]

    def _try(self, peer: Peer, action: Callable[[], None]) -> None:
        try:
            action()
        except (Gone, Garbage) as error:
            self._lose(peer, str(error))

    def _hear(self, peer: Peer) -> None:
        def take() -> None:
            messages = peer.channel.receive()
            peer.heard = time.monotonic()
            for message in messages:
                if self.me.role == "master":
                    self._take_slave(peer, message)
                else:
                    self._take_all(message)

        self._try(peer, take)

    def _take_slave(self, peer: Peer, message: dict[str, Any]) -> None:
        node = Node.from_json(message.get("node"))
        self._change(replace(node, name=peer.name, role="slave", program=peer.program))

    def _take_all(self, message: dict[str, Any]) -> None:
        nodes = message.get("nodes")
        if not isinstance(nodes, list):
            raise Garbage(f"it sent {short(message)} in place of the table of nodes")
        mine = short(message.get("you"))
        for node in map(Node.from_json, nodes):
            if node.name == mine:
                self.me = replace(self.me, name=mine)
            else:
                self._change(node)
        if message.get("started") is True:
            self._start()

    def _change(self, node: Node) -> None:
        before = self._others.get(node.name, replace(node, state="preparing", fault="", reason=""))
        self._others[node.name] = node
        if (before.state, before.fault) != (node.state, node.fault):
            self._on_change(before, node)

    def _lose(self, peer: Peer, why: str) -> None:
        """A connection has ended: for a node that had ended that is in order."""
        self._peers.remove(peer)
        peer.channel.close()
        node = self._others[peer.name]
        if node.state != "ended":
            self._change(replace(node, state="lost", reason=why))
        if self.me.role == "slave":
            for other in [one for one in self._others.values() if not one.is_over]:
                self._change(replace(other, state="unknown", reason=f"{node.name}, which told of it, has left"))

    def _look_for_silence(self) -> None:
        for peer in self._peers:
            node = self._others[peer.name]
            if time.monotonic() - peer.heard > self._silence_s and not node.is_over:
                self._change(replace(node, state="silent", reason=f"nothing was heard of it for {self._silence_s:g} s"))

    def _perhaps_start(self) -> None:
        """The master lets all begin once nobody prepares any more; a slave whose master has gone has nobody to wait for."""
        nodes = self._all()
        if self.me.role == "slave":
            begins = not self._peers and self.me.state == "ready"
        else:
            preparing = any(node.state == "preparing" and not node.fault for node in nodes)
            begins = not preparing and any(node.state == "ready" for node in nodes)
        if begins or self._started.is_set():  # one may come late
            self._start()

    def _start(self) -> None:
        if self.me.state == "ready":
            self.me = replace(self.me, state="acquiring")
        self._started.set()

    def _send_all(self) -> None:
        for peer in list(self._peers):
            if self.me.role == "slave":
                message: dict[str, Any] = {"node": asdict(self.me)}
            else:
                nodes = [asdict(node) for node in self._all()]
                message = {"nodes": nodes, "you": peer.name, "started": self._started.is_set()}
            self._try(peer, partial(peer.channel.send, message))
