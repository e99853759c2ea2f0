"""How the PCs of one session come together: the handshake of the launcher 0.2.57, so that a PC with it can be master or slave.

::

    slave  → {"session_key": K, "state": "ready", "role": "slave", "node_name": N}
    master → {"status": "announce", "session_key": K, "session_name": S, "expected_slaves": n, "master": M}
    slave  → {"status": "ack", "session_name": S, "node_name": N}
    master → {"status": "complete", "session_name": S}
    master → {"status": "error", "reason": "session_key_mismatch" | "invalid_state" | text}

A master of ours adds ``"openscope"`` to its announcement, which the launcher ignores; a slave of ours that reads it adds the
same to its ``ack``. Between these two the connection stays (:class:`.nodes.Nodes`). A slave that meets a launcher's master
sends nothing but the launcher's own messages.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .node_wire import MAX_TEXT_CHARS, SLICE_S, Channel, Garbage, Gone, Node, short, words_of

#: One attempt to connect; Ctrl-C waits for it on Windows.
_CONNECT_S = 5.0
#: Reasons for refusals that are kept for the message at the end.
_TOLD_REFUSALS = 5
#: The version of what follows the handshake between nodes that say ``openscope``.
_VERSION = 1

Tell = Callable[[str, str], None]


class SyncError(Exception):
    """The PCs did not come together; the text says why, and what to do."""


@dataclass(frozen=True)
class Sync:
    """What one PC needs to know for the handshake; ``silence_s`` is the time after which another node counts as silent."""

    node_name: str
    key: str
    port: int
    bind_host: str
    master_host: str
    expected_slaves: int
    timeout_s: float
    ack_timeout_s: float
    retry_delay_s: float
    silence_s: float
    program: str

    @property
    def own(self) -> dict[str, Any]:
        """What a node of ours says of itself in the handshake."""
        return {"version": _VERSION, "silence_s": self.silence_s, "program": self.program}

    def me(self, role: str) -> Node:
        return Node(short(self.node_name), role, socket.gethostname(), self.program, "preparing")


class Peer:
    """The other end of a connection. ``is_ours``: it said so in the handshake, and its connection stays."""

    def __init__(self, channel: Channel, name: str = "") -> None:
        self.channel = channel
        self.name = name
        self.program = "launcher"
        self.silence_s = 0.0
        self.is_ours = False
        self.acknowledged = False
        #: When something was heard of it last.
        self.heard = time.monotonic()

    def __str__(self) -> str:
        return f"{self.name} ({self.channel.host})"

    def read_own(self, message: dict[str, Any]) -> None:
        own = message.get("openscope")
        if isinstance(own, dict):
            self.is_ours = True
            self.program = short(own["program"])
            self.silence_s = float(own["silence_s"])

    def as_node(self, role: str) -> Node:
        if self.is_ours:
            return Node(self.name, role, self.channel.host, self.program, "preparing")
        return Node(self.name, role, self.channel.host, reason="its program takes part in the handshake only")


@dataclass
class Joined:
    """The handshake's result: the session's name, this node, the others as they are known now, and their connections."""

    session_name: str
    me: Node
    others: list[Node]
    peers: list[Peer]


# -- the master ----------------------------------------------------------------------------------------------------------


def gather(sync: Sync, session_name: str, tell: Tell) -> Joined:
    """Be the master: wait for the slaves, give them the name, and wait until all have acknowledged it.

    Connections that are no slave of this session (a wrong key, garbage, silence) are refused and told of; the wait goes on.

    Raises:
        SyncError: the port is taken, not all slaves came in time, or one did not acknowledge the name.
    """
    gathering = _Gathering(sync, tell)
    try:
        if sync.expected_slaves > 0:
            gathering.wait_for_slaves()
        gathering.agree_on(session_name)
    except SyncError as error:
        gathering.dismiss(str(error))
        raise
    finally:
        gathering.end()
    slaves = gathering.slaves
    for peer in slaves:
        if not peer.is_ours:
            peer.channel.leave()
    others = [peer.as_node("slave") for peer in slaves]
    return Joined(session_name, sync.me("master"), others, [peer for peer in slaves if peer.is_ours])


class _Gathering:
    """The master's side of the handshake: all connections at once, so that a silent one holds up nobody."""

    def __init__(self, sync: Sync, tell: Tell) -> None:
        self._sync = sync
        self._tell = tell
        self._selector = selectors.DefaultSelector()
        self._strangers: list[Peer] = []
        self._refused: deque[str] = deque(maxlen=_TOLD_REFUSALS)
        self._agreed = False
        self.slaves: list[Peer] = []

    def wait_for_slaves(self) -> None:
        sync = self._sync
        wanted = f"{sync.expected_slaves} slave{'' if sync.expected_slaves == 1 else 's'}"
        with _listen(sync.bind_host, sync.port) as listener:
            self._selector.register(listener, selectors.EVENT_READ)
            self._tell("INFO", f"waiting for {wanted} on {sync.bind_host}:{sync.port}, key {sync.key!r}")
            deadline = time.monotonic() + sync.timeout_s
            while len(self.slaves) < sync.expected_slaves:
                if time.monotonic() > deadline:
                    raise SyncError(
                        f"{len(self.slaves)} of {wanted} came within {sync.timeout_s:g} s (session_sync_timeout_sec):"
                        f" {', '.join(map(str, self.slaves)) or 'none'}{''.join(f'; {text}' for text in self._refused)}"
                        f" -> start the other PCs with session_sync_port {sync.port} and this PC as session_sync_master_host"
                    )
                for key, _ in self._selector.select(SLICE_S):
                    if key.data is None:
                        self._accept(listener)
                    else:
                        self._hear(key.data)
                for peer in [one for one in self._strangers if time.monotonic() - one.heard > sync.ack_timeout_s]:
                    self._refuse(peer, f"it said nothing for {sync.ack_timeout_s:g} s", "timeout")

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was taken back before it could be accepted
            connection, _ = listener.accept()
            peer = Peer(Channel(connection))
            self._strangers.append(peer)
            self._selector.register(connection, selectors.EVENT_READ, peer)

    def _hear(self, peer: Peer) -> None:
        """Take what a connection says: a stranger's first message, or the end of a slave that does not wait any more."""
        try:
            messages = peer.channel.receive()
        except Gone as error:
            if peer in self.slaves:
                self._drop(peer, f"{peer} has left again: {error}")
            else:
                self._refuse(peer, str(error))
            return
        except Garbage as error:
            self._refuse(peer, str(error), "invalid_message")
            return
        if messages and peer not in self.slaves:
            self._meet(peer, messages[0])

    def _meet(self, peer: Peer, message: dict[str, Any]) -> None:
        sync = self._sync
        key, state, role = message.get("session_key"), message.get("state"), message.get("role", "slave")
        name = short(message.get("node_name") or peer.channel.host)
        if key != sync.key:
            why = f"{name} has the session key {short(repr(key))}, this master {sync.key!r}"
            self._refuse(peer, why, "session_key_mismatch")
        elif state != "ready" or role != "slave":
            why = f"{name} says state {short(repr(state))}, role {short(repr(role))}, not ready and slave"
            self._refuse(peer, why, "invalid_state")
        elif len(self.slaves) < sync.expected_slaves:
            peer.name = self._free_name(name)
            self._strangers.remove(peer)
            self.slaves.append(peer)
            self._tell("INFO", f"{peer} is here: {len(self.slaves)} of {sync.expected_slaves}")

    def _free_name(self, name: str) -> str:
        """Return the name, a doubled one with a number: two nodes on one computer both have the host's."""
        taken = {short(self._sync.node_name), *(peer.name for peer in self.slaves)}
        number, free = 2, name
        while free in taken:
            number, free = number + 1, f"{name}[{number}]"
        return free

    def _refuse(self, peer: Peer, why: str, reason: str = "") -> None:
        if reason:
            _try_to_send(peer.channel, {"status": "error", "reason": reason})
        self._drop(peer, f"a connection from {peer.channel.host} was refused: {why}")

    def _drop(self, peer: Peer, text: str) -> None:
        """Give a connection up; a program that tries again and again is told of once."""
        (self.slaves if peer in self.slaves else self._strangers).remove(peer)
        self._selector.unregister(peer.channel.socket)
        peer.channel.close()
        if text not in self._refused:
            self._refused.append(text)
            self._tell("WARNING", text)

    def agree_on(self, session_name: str) -> None:
        """Announce the name, and release the slaves once all have acknowledged it."""
        sync = self._sync
        announcement = {
            "status": "announce",
            "session_key": sync.key,
            "session_name": session_name,
            "expected_slaves": sync.expected_slaves,
            "master": sync.node_name,
            "openscope": sync.own,
        }
        self._send(announcement)
        deadline = time.monotonic() + sync.ack_timeout_s
        with selectors.DefaultSelector() as selector:
            for peer in self.slaves:
                selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
            while late := [peer for peer in self.slaves if not peer.acknowledged]:
                if time.monotonic() > deadline:
                    raise SyncError(
                        f"{', '.join(map(str, late))} did not acknowledge the session's name within {sync.ack_timeout_s:g} s"
                        " (session_sync_ack_timeout_sec) -> look at that PC, then start all again"
                    )
                for key, _ in selector.select(SLICE_S):
                    self._take_acknowledgement(key.data, session_name)
        self._send({"status": "complete", "session_name": session_name})
        self._agreed = True
        if self.slaves:
            self._tell("INFO", f"session {session_name} agreed with {', '.join(peer.name for peer in self.slaves)}")

    def _send(self, message: dict[str, Any]) -> None:
        for peer in self.slaves:
            try:
                peer.channel.send(message)
            except Gone as error:
                raise _fell_out(peer, error) from None

    def _take_acknowledgement(self, peer: Peer, session_name: str) -> None:
        try:
            for message in peer.channel.receive():
                if message.get("status") == "error":
                    raise SyncError(f"{peer} cannot take part: {short(message.get('reason'), MAX_TEXT_CHARS)}")
                if message.get("status") != "ack" or message.get("session_name") != session_name:
                    raise Garbage(f"it sent {short(message)} in place of an acknowledgement")
                peer.acknowledged = True
                peer.read_own(message)
        except (Gone, Garbage) as error:
            raise _fell_out(peer, error) from None

    def dismiss(self, why: str) -> None:
        """Let the slaves go, which learn why."""
        for peer in self.slaves:
            _try_to_send(peer.channel, {"status": "error", "reason": short(why, MAX_TEXT_CHARS)})
        for peer in self.slaves:
            peer.channel.leave()

    def end(self) -> None:
        for peer in self._strangers if self._agreed else (*self._strangers, *self.slaves):
            peer.channel.close()
        self._selector.close()


def _fell_out(peer: Peer, error: Exception) -> SyncError:
    return SyncError(f"{peer} fell out of the handshake: {error} -> start all PCs again")


def _try_to_send(channel: Channel, message: dict[str, Any]) -> None:
    with contextlib.suppress(Gone):
        channel.send(message)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        problem = words_of(error) if isinstance(error, OSError) else "is no host name"
        raise SyncError(f"session_sync_bind_host {host!r}: {problem} -> give an address of this PC, or 0.0.0.0") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let a second master have the port too, and half of the slaves.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SyncError(
            f"cannot listen on {host}:{port} as master: {words_of(error)}"
            " -> end the other master on this PC, or give all PCs another session_sync_port"
        ) from None
    return listener


# -- a slave -------------------------------------------------------------------------------------------------------------


def join(sync: Sync, refusal: Callable[[str], str], tell: Tell) -> Joined:
    """Be a slave: find the master, take the session's name from it, and wait until it releases all.

    ``refusal(name)`` says why this PC cannot have a session of that name; "" when it can.

    Raises:
        SyncError: no master in time, another key, a master that breaks off, keeps silent or talks something else.
    """
    deadline = time.monotonic() + sync.timeout_s
    where, said = f"{sync.master_host}:{sync.port}", ""
    tell("INFO", f"looking for the master at {where}, key {sync.key!r}")
    while True:
        try:
            return _take_name(sync, _connect(sync, deadline), refusal, tell)
        except UnicodeError:
            raise SyncError(f"session_sync_master_host {sync.master_host!r} is no host name -> correct it") from None
        except (Gone, OSError) as error:
            # Not there yet, started anew, or busy with others: the launcher's slave tries again as well.
            why = words_of(error) if isinstance(error, OSError) else f"it was there, but {error}"
        if why != said:
            said = why
            tell("WARNING", f"no master at {where} yet: {why}; trying again every {sync.retry_delay_s:g} s")
        again_at = time.monotonic() + sync.retry_delay_s
        if again_at > deadline:
            raise SyncError(
                f"no master at {where} within {sync.timeout_s:g} s (session_sync_timeout_sec): {said}"
                " -> start the master, check session_sync_master_host and session_sync_port;"
                " a master that has begun without this PC does not listen any more"
            )
        while (left_s := again_at - time.monotonic()) > 0:
            time.sleep(min(left_s, SLICE_S))


def _connect(sync: Sync, deadline: float) -> Channel:
    left_s = min(_CONNECT_S, max(0.1, deadline - time.monotonic()))
    return Channel(socket.create_connection((sync.master_host, sync.port), timeout=left_s))


def _take_name(sync: Sync, channel: Channel, refusal: Callable[[str], str], tell: Tell) -> Joined:
    """Go through the handshake on one connection, which stays with a master of ours only.

    Raises:
        Gone: the master has left before it announced the name; the caller may try again.
        SyncError: as of :func:`join`.
    """
    who = f"the master at {sync.master_host}:{sync.port}"
    joined = None
    try:
        channel.send({"session_key": sync.key, "state": "ready", "role": "slave", "node_name": sync.node_name})
        tell("INFO", f"connected to {who}; waiting for the session's name")
        announcement = _next_message(sync, channel, who, "announce", "the session's name")
        name = str(announcement.get("session_name", ""))
        if problem := refusal(name):
            _try_to_send(channel, {"status": "error", "reason": problem})
            channel.leave()
            raise SyncError(f"{who} announces a name that this PC cannot take: {problem}")
        master = Peer(channel, short(announcement.get("master") or sync.master_host))
        master.read_own(announcement)
        acknowledgement: dict[str, Any] = {"status": "ack", "session_name": name, "node_name": sync.node_name}
        if master.is_ours:
            acknowledgement["openscope"] = sync.own
        try:
            channel.send(acknowledgement)
            _next_message(sync, channel, who, "complete", "the release of all nodes")
        except Gone as error:
            raise SyncError(f"{who} broke off after it had announced {name!r}: {error} -> start all PCs again") from None
        tell("INFO", f"session {name} agreed with {master.name}")
        joined = Joined(name, sync.me("slave"), [master.as_node("master")], [master] if master.is_ours else [])
        return joined
    finally:
        if joined is None or not joined.peers:
            channel.close()


def _next_message(sync: Sync, channel: Channel, who: str, status: str, what: str) -> dict[str, Any]:
    """Return the master's next message, which has to come within ``session_sync_ack_timeout_sec``."""
    deadline = time.monotonic() + sync.ack_timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(channel.socket, selectors.EVENT_READ)
        try:
            while not (messages := channel.receive(1)):
                if time.monotonic() > deadline:
                    raise SyncError(
                        f"{who} did not send {what} within {sync.ack_timeout_s:g} s (session_sync_ack_timeout_sec)"
                        " -> is it waiting for another PC? Start that one, or give more time"
                    )
                selector.select(SLICE_S)
            (message,) = messages
            if message.get("status") not in ("error", status):
                raise Garbage(f"it sent {short(message)} in place of {what}")
        except Garbage as error:
            raise SyncError(
                f"{who} does not speak the session protocol: {error} -> check session_sync_port on both PCs"
            ) from None
    if message.get("status") == status:
        return message
    if message.get("reason") == "session_key_mismatch":
        raise SyncError(
            f"{who} refused this PC: its session key is not {sync.key!r}"
            " -> give both PCs the same subject, or the same session_sync_session_key"
        )
    raise SyncError(f"{who} ended the handshake: {short(message.get('reason'), MAX_TEXT_CHARS)}")
