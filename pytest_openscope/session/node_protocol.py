"""The wire between the PCs of one session: one JSON object a line over TCP, with limits on time and size everywhere.

The handshake is that of the launcher 0.2.57, so that a PC with the launcher can be master or slave::

    slave  → {"session_key": K, "state": "ready", "role": "slave", "node_name": N}
    master → {"status": "announce", "session_key": K, "session_name": S, "expected_slaves": n, "master": M}
    slave  → {"status": "ack", "session_name": S, "node_name": N}
    master → {"status": "complete", "session_name": S}
    master → {"status": "error", "reason": "session_key_mismatch" | "invalid_state" | text}

A master of ours adds ``"openscope"`` to its announcement, which the launcher ignores; a slave of ours that reads it adds the
same to its ``ack``. Between these two the connection stays (:class:`.nodes.Nodes`): the slave sends ``{"node": …}``, what it
knows of itself, and the master ``{"nodes": […], "started": …}``, what it knows of all; each at every change, and again as a
sign of life. Both say all that there is, so that no message depends on the one before. A slave that meets a launcher's master
sends nothing but the launcher's own messages.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

#: A longer line is no message of this protocol, whoever sends it.
MAX_LINE_BYTES = 256 * 1024
#: What is sent to somebody who does not read; then the connection is given up.
MAX_UNREAD_BYTES = 4 * 1024 * 1024
#: How long a wait in the main thread may last before Python looks for Ctrl-C (on Windows nothing else lets it look).
SLICE_S = 0.1
#: One attempt to connect; Ctrl-C waits for it on Windows.
_CONNECT_S = 5.0
#: Connections that have not said yet who they are.
_MOST_STRANGERS = 64
#: Reasons for refusals that are kept for the message at the end.
_TOLD_REFUSALS = 5
CHUNK_BYTES = 64 * 1024
_NAME_CHARS = 80
#: A node that asked for more signs of life than that would get none.
_LEAST_SILENCE_S = 0.1
_TEXT_CHARS = 500
_MOST_LEVELS = 8
#: A node that leaves waits so long for the other side to have read its last words.
LINGER_S = 1.0
#: The version of what follows the handshake between nodes that say ``openscope``.
VERSION = 1

Tell = Callable[[str, str], None]


class SyncError(Exception):
    """The PCs did not come together; the text says why, and what to do."""


class Gone(Exception):  # noqa: N818 - what happened, not whose fault it was
    """A connection has ended: closed, broken, or not read any more."""


class Garbage(Exception):  # noqa: N818
    """Somebody sent what is no message of the protocol."""


@dataclass(frozen=True)
class Sync:
    """What one PC needs to know for the handshake; ``silence_s`` is the time after which another node counts as silent."""

    role: str
    node_name: str
    key: str
    port: int
    bind_host: str = "0.0.0.0"
    master_host: str = ""
    expected_slaves: int = 1
    timeout_s: float = 300.0
    ack_timeout_s: float = 300.0
    retry_delay_s: float = 1.0
    silence_s: float = 30.0
    program: str = "pytest-openscope"

    @property
    def own(self) -> dict[str, Any]:
        """What a node of ours says of itself in the handshake."""
        return {"version": VERSION, "silence_s": self.silence_s, "program": self.program}


@dataclass(frozen=True)
class Node:
    """One PC of the session, as all others see it.

    ``host`` is its name, or the address of one that only takes part in the handshake. ``state`` is ``preparing``, ``ready``
    (waits for the common start), ``acquiring``, ``ended``, ``silent`` (says nothing any more), ``lost`` (its connection broke
    before it had ended) or ``unknown`` (runs the launcher; or the master that told of it has left). ``fault`` is ``failed`` or
    ``stopped`` once its session does not go on as it should, and ``reason`` says why. ``outcome`` is known once it has ended.
    """

    name: str
    role: str = "slave"
    host: str = ""
    program: str = "launcher"
    state: str = "unknown"
    fault: str = ""
    reason: str = ""
    outcome: str | None = None
    session_folder: str = ""

    @property
    def is_over(self) -> bool:
        """Nothing more will be heard of it."""
        return self.state in ("ended", "lost", "silent", "unknown")

    @classmethod
    def from_json(cls, data: Any) -> Node:
        """Read a node from a message; raises ``Garbage``."""
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise Garbage("a node without a name")
        known = {one.name: short(data[one.name], _TEXT_CHARS) for one in fields(cls) if data.get(one.name) is not None}
        return cls(**{**known, "name": short(data["name"])})


# -- frames --------------------------------------------------------------------------------------------------------------


class Channel:
    """One connection that is never waited for: lines in, lines out."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        _notice_dead_peers(connection)
        self.socket = connection
        self.host = _host_of(connection)
        self._in = bytearray()
        self._out = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, or keep what the network does not take for :meth:`flush`.

        Raises:
            Gone: the connection broke, or the other side has stopped reading.
        """
        self._out += json.dumps(message, separators=(",", ":")).encode("utf-8") + b"\n"
        self.flush()

    @property
    def unsent(self) -> bool:
        """Something waits for the network."""
        return bool(self._out)

    def flush(self) -> None:
        """Send what is left; raises as :meth:`send`."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out[:CHUNK_BYTES])]
        except (BlockingIOError, InterruptedError):
            if len(self._out) > MAX_UNREAD_BYTES:
                raise Gone("it does not read any more") from None
        except OSError as error:
            raise Gone(_words(error)) from None

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have come; none when there are none.

        Raises:
            Gone: the connection is closed or broke.
            Garbage: what came is no message, or is longer than one may be.
        """
        try:
            data = self.socket.recv(CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise Gone(_words(error)) from None
        if not data:
            raise Gone("it closed the connection")
        self._in += data
        *lines, rest = self._in.split(b"\n")
        if any(len(line) > MAX_LINE_BYTES for line in (*lines, rest)):
            raise Garbage(f"a message of more than {MAX_LINE_BYTES:,} bytes")
        self._in = bytearray(rest)
        return [_decode(bytes(line)) for line in lines]

    def close(self) -> None:
        """Give the connection up."""
        with contextlib.suppress(OSError):
            self.socket.close()

    def leave(self) -> None:
        """Close behind the last word: with something unread in it a closed socket would take that word back."""
        deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError, Gone, Garbage):
            while self._out and time.monotonic() < deadline:
                self.flush()
                time.sleep(0.005 if self._out else 0)
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(SLICE_S)
            while time.monotonic() < deadline:
                try:
                    if not self.socket.recv(CHUNK_BYTES):
                        break
                except TimeoutError:
                    continue
        self.close()


def _decode(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Garbage(f"no JSON object: {line[:60]!r}") from None
    if not isinstance(message, dict):
        raise Garbage(f"no JSON object: {line[:60]!r}")
    if _is_deep(message):
        raise Garbage(f"an object of more than {_MOST_LEVELS} levels: {line[:60]!r}")
    return message


def _is_deep(value: Any) -> bool:
    """Tell of a value that could be read, but not be shown: that takes a level of Python's stack for each of its own."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level = [part for part in level if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _notice_dead_peers(connection: socket.socket) -> None:
    """Let the system find out within half a minute that a PC was switched off; not every system can be told how."""
    wanted = [("SO_KEEPALIVE", socket.SOL_SOCKET, 1), ("TCP_NODELAY", socket.IPPROTO_TCP, 1)]
    wanted += [
        (name, socket.IPPROTO_TCP, value) for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    ]
    for name, level, value in wanted:
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(level, option, value)


def _host_of(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "?"


def _words(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def short(value: Any, limit: int = _NAME_CHARS) -> str:
    """Return a text of somebody else's for one line of terminal and log: nothing in it moves the cursor or breaks the line."""
    text = "".join(char if char.isprintable() else "?" for char in " ".join(str(value).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


# -- the handshake -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Peer:
    """The other end of a connection. ``is_ours``: it said so in the handshake, and its connection stays."""

    channel: Channel
    since: float
    name: str = ""
    program: str = "launcher"
    silence_s: float = 0.0
    is_ours: bool = False
    acknowledged: bool = False
    #: What came together with the handshake's last message.
    early: list[dict[str, Any]] = field(default_factory=list)
    heard: float = field(default_factory=time.monotonic)

    def read_own(self, message: dict[str, Any]) -> None:
        """Take what a node of ours says of itself in the handshake; another program says nothing."""
        own = message.get("openscope")
        if not isinstance(own, dict) or not isinstance(own.get("version"), int):
            return
        self.is_ours = True
        self.program = short(own.get("program") or "pytest-openscope")
        silence_s = own.get("silence_s")
        self.silence_s = (
            float(silence_s) if isinstance(silence_s, (int, float)) and _LEAST_SILENCE_S <= silence_s < 1e6 else 0.0
        )


@dataclass
class Joined:
    """The handshake's result: the session's name, this node, the others as they are known now, and their connections."""

    session_name: str
    me: Node
    others: list[Node]
    peers: list[Peer]

    def close(self) -> None:
        """Give all connections up."""
        for peer in self.peers:
            peer.channel.close()


def gather(sync: Sync, session_name: str, tell: Tell) -> Joined:
    """Be the master: wait for the slaves, give them the name, and wait until all have acknowledged it.

    Connections that are no slave of this session (a wrong key, garbage, silence) are refused and told of; the wait goes on.

    Raises:
        SyncError: the port is taken, not all slaves came in time, or one did not acknowledge the name.
    """
    gathering = _Gathering(sync, tell)
    try:
        gathering.wait_for_slaves()
        gathering.agree_on(session_name)
    except BaseException:
        gathering.close_all()
        raise
    me = Node(short(sync.node_name), "master", socket.gethostname(), sync.program, "preparing")
    peers = gathering.slaves
    for peer, name in zip(peers, _different_names([me.name], [peer.name for peer in peers]), strict=True):
        peer.name = name
        if not peer.is_ours:
            peer.channel.leave()
    others = [_node_of(peer) for peer in peers]
    return Joined(session_name, me, others, [peer for peer in peers if peer.is_ours])


def _node_of(peer: Peer, role: str = "slave") -> Node:
    if peer.is_ours:
        return Node(peer.name, role, peer.channel.host, peer.program, "preparing")
    return Node(peer.name, role, peer.channel.host, reason="its program takes part in the handshake only")


def _different_names(taken: list[str], names: list[str]) -> list[str]:
    """Return the names, a doubled one with a number: two nodes on one computer both have the host's."""
    known, found = set(taken), []
    for name in names:
        number, unique = 2, name
        while unique in known:
            number, unique = number + 1, f"{name}[{number}]"
        known.add(unique)
        found.append(unique)
    return found


class _Gathering:
    """The master's side of the handshake: all connections at once, so that a silent one holds up nobody."""

    def __init__(self, sync: Sync, tell: Tell) -> None:
        self._sync = sync
        self._tell = tell
        self._strangers: list[Peer] = []
        self._refused: list[str] = []
        self.slaves: list[Peer] = []

    def wait_for_slaves(self) -> None:
        """Listen until as many slaves as expected are there."""
        sync = self._sync
        if sync.expected_slaves <= 0:
            return
        listener = _listen(sync.bind_host, sync.port)
        deadline = time.monotonic() + sync.timeout_s
        self._tell("INFO", f"waiting for {_slaves(sync.expected_slaves)} on {sync.bind_host}:{sync.port}, key {sync.key!r}")
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                while len(self.slaves) < sync.expected_slaves:
                    if time.monotonic() > deadline:
                        self._give_up(self._who_is_missing())
                    for key, _ in selector.select(SLICE_S):
                        if key.fileobj is listener:
                            self._accept(listener, selector)
                        elif key.data in self._strangers or key.data in self.slaves:  # not refused a moment ago
                            self._hear(key.data, selector)
                    self._drop_the_silent(selector)
        finally:
            listener.close()
            for peer in self._strangers:
                peer.channel.close()
            self._strangers.clear()

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it was taken back before it could be accepted
        peer = Peer(Channel(connection), time.monotonic())
        self._strangers.append(peer)
        selector.register(connection, selectors.EVENT_READ, peer)
        if len(self._strangers) > _MOST_STRANGERS:
            self._refuse(self._strangers[0], selector, "", f"{_MOST_STRANGERS} connections that say nothing")

    def _hear(self, peer: Peer, selector: selectors.BaseSelector) -> None:
        """Take what a connection says: a stranger's first message, or the end of a slave that does not wait any more."""
        try:
            messages = peer.channel.receive()
        except (Gone, Garbage) as error:
            if peer in self.slaves:
                self.slaves.remove(peer)
                self._drop(peer, selector, f"{peer.name} ({peer.channel.host}) has left again: {error}")
            elif isinstance(error, Garbage):
                self._refuse(peer, selector, "invalid_message", f"it sent {error}")
            else:
                self._refuse(peer, selector, "", str(error))
            return
        if not messages:
            return
        if peer in self.slaves or len(messages) > 1:
            self.slaves = [one for one in self.slaves if one is not peer]
            self._refuse(peer, selector, "invalid_message", "it sent more than the handshake has")
            return
        message = messages[0]
        key, state, role = message.get("session_key"), message.get("state"), message.get("role", "slave")
        name = short(message.get("node_name") or peer.channel.host)
        if key != self._sync.key:
            why = f"{name} has the session key {short(repr(key))}, this master {self._sync.key!r}"
            self._refuse(peer, selector, "session_key_mismatch", why)
        elif state != "ready" or role != "slave":
            why = f"{name} says state {short(repr(state))}, role {short(repr(role))}, not ready and slave"
            self._refuse(peer, selector, "invalid_state", why)
        elif len(self.slaves) < self._sync.expected_slaves:
            peer.name = name
            self._strangers.remove(peer)
            self.slaves.append(peer)
            self._tell("INFO", f"{name} ({peer.channel.host}) is here: {len(self.slaves)} of {self._sync.expected_slaves}")

    def _drop_the_silent(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for peer in [one for one in self._strangers if now - one.since > self._sync.ack_timeout_s]:
            self._refuse(peer, selector, "timeout", f"it said nothing for {self._sync.ack_timeout_s:g} s")

    def _refuse(self, peer: Peer, selector: selectors.BaseSelector, reason: str, why: str) -> None:
        if reason:
            _try_to_send(peer.channel, {"status": "error", "reason": reason})
        if peer in self._strangers:
            self._strangers.remove(peer)
        text = f"a connection from {peer.channel.host} was refused: {why}"
        # A program that tries again and again is told of once.
        self._drop(peer, selector, "" if text in self._refused else text)
        self._refused = [*(one for one in self._refused if one != text), text][-_TOLD_REFUSALS:]

    def _drop(self, peer: Peer, selector: selectors.BaseSelector, text: str) -> None:
        selector.unregister(peer.channel.socket)
        peer.channel.close()
        if text:
            self._tell("WARNING", text)

    def _who_is_missing(self) -> str:
        sync = self._sync
        here = ", ".join(f"{peer.name} ({peer.channel.host})" for peer in self.slaves) or "none"
        return (
            f"{len(self.slaves)} of {_slaves(sync.expected_slaves)} came within {sync.timeout_s:g} s"
            f" (session_sync_timeout_sec): {here}{''.join(f'; {text}' for text in self._refused)}"
            f" -> start the other PCs with session_sync_port {sync.port} and this PC as session_sync_master_host"
        )

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
        try:
            for peer in self.slaves:
                self._to(peer, announcement)
            self._wait_for_acknowledgements(session_name)
            for peer in self.slaves:
                self._to(peer, {"status": "complete", "session_name": session_name})
        except SyncError as error:
            self._give_up(str(error))
        for peer in self.slaves:
            peer.heard = time.monotonic()
        if self.slaves:
            self._tell("INFO", f"session {session_name} agreed with {', '.join(peer.name for peer in self.slaves)}")

    def _give_up(self, why: str) -> NoReturn:
        """Let the slaves go, which learn why."""
        for peer in self.slaves:
            _try_to_send(peer.channel, {"status": "error", "reason": short(why, _TEXT_CHARS)})
        for peer in self.slaves:
            peer.channel.leave()
        raise SyncError(why)

    def _to(self, peer: Peer, message: dict[str, Any]) -> None:
        try:
            peer.channel.send(message)
        except Gone as error:
            raise SyncError(f"{peer.name} ({peer.channel.host}) has left: {error} -> start all PCs again") from None

    def _wait_for_acknowledgements(self, session_name: str) -> None:
        deadline = time.monotonic() + self._sync.ack_timeout_s
        with selectors.DefaultSelector() as selector:
            for peer in self.slaves:
                selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
            while not all(peer.acknowledged for peer in self.slaves):
                if time.monotonic() > deadline:
                    late = ", ".join(f"{peer.name} ({peer.channel.host})" for peer in self.slaves if not peer.acknowledged)
                    raise SyncError(
                        f"{late} did not acknowledge the session's name within {self._sync.ack_timeout_s:g} s"
                        " (session_sync_ack_timeout_sec) -> look at that PC, then start all again"
                    )
                for key, _ in selector.select(SLICE_S):
                    self._take_acknowledgement(key.data, session_name)

    def _take_acknowledgement(self, peer: Peer, session_name: str) -> None:
        who = f"{peer.name} ({peer.channel.host})"
        try:
            messages = peer.channel.receive()
        except Gone as error:
            raise SyncError(f"{who} has left before it acknowledged the name: {error} -> start all PCs again") from None
        except Garbage as error:
            raise SyncError(f"{who} sent {error} in place of an acknowledgement -> is it the right PC?") from None
        for message in messages:
            if message.get("status") == "error":
                raise SyncError(f"{who} cannot take part: {short(message.get('reason'), _TEXT_CHARS)}")
            if peer.acknowledged or message.get("status") != "ack" or message.get("session_name") != session_name:
                raise SyncError(f"{who} did not acknowledge the name {session_name!r}: {short(message)} -> start all PCs again")
            peer.acknowledged = True
            peer.read_own(message)

    def close_all(self) -> None:
        """Give all connections up."""
        for peer in (*self._strangers, *self.slaves):
            peer.channel.close()


def _slaves(number: int) -> str:
    return f"{number} slave{'' if number == 1 else 's'}"


def _try_to_send(channel: Channel, message: dict[str, Any]) -> None:
    with contextlib.suppress(Gone):
        channel.send(message)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        problem = _words(error) if isinstance(error, OSError) else "is no host name"
        raise SyncError(f"session_sync_bind_host {host!r}: {problem} -> give an address of this PC, or 0.0.0.0") from None
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let a second master have the port too, and half of the slaves.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_MOST_STRANGERS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SyncError(
            f"cannot listen on {host}:{port} as master: {_words(error)}"
            " -> end the other master on this PC, or give all PCs another session_sync_port"
        ) from None
    return listener


def join(sync: Sync, refusal: Callable[[str], str], tell: Tell) -> Joined:
    """Be a slave: find the master, take the session's name from it, and wait until it releases all.

    Args:
        sync: who this node is.
        refusal: says why this PC cannot have a session of that name; "" when it can.
        tell: takes level and text of what happens.

    Raises:
        SyncError: no master in time, another key, a master that breaks off, keeps silent or talks something else.
    """
    deadline = time.monotonic() + sync.timeout_s
    where, said = f"{sync.master_host}:{sync.port}", ""
    tell("INFO", f"looking for the master at {where}, key {sync.key!r}")
    while True:
        channel: Channel | None = None
        try:
            channel = _connect(sync, deadline)
            return _take_name(sync, channel, refusal, tell)
        except UnicodeError:
            raise SyncError(f"session_sync_master_host {sync.master_host!r} is no host name -> correct it") from None
        except (Gone, OSError) as error:
            # Not there yet, started anew, or busy with others: the launcher's slave tries again as well.
            why = _words(error) if isinstance(error, OSError) else f"it was there, but {error}"
            if channel is not None:
                channel.close()
            if why != said:
                said = why
                tell("WARNING", f"no master at {where} yet: {why}; trying again every {sync.retry_delay_s:g} s")
        except BaseException:
            if channel is not None:
                channel.close()
            raise
        if time.monotonic() + sync.retry_delay_s > deadline:
            raise SyncError(
                f"no master at {where} within {sync.timeout_s:g} s (session_sync_timeout_sec): {said}"
                " -> start the master, check session_sync_master_host and session_sync_port;"
                " a master that has begun without this PC does not listen any more"
            )
        _sleep(sync.retry_delay_s)


def _sleep(duration_s: float) -> None:
    deadline = time.monotonic() + duration_s
    while (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(left_s, SLICE_S))


def _connect(sync: Sync, deadline: float) -> Channel:
    left_s = min(_CONNECT_S, max(0.1, deadline - time.monotonic()))
    return Channel(socket.create_connection((sync.master_host, sync.port), timeout=left_s))


def _take_name(sync: Sync, channel: Channel, refusal: Callable[[str], str], tell: Tell) -> Joined:
    """Go through the handshake on one connection; ``Gone`` before the name was announced lets the caller try again."""
    who = f"the master at {sync.master_host}:{sync.port}"
    messages = _Inbox(sync, channel, who)
    channel.send({"session_key": sync.key, "state": "ready", "role": "slave", "node_name": sync.node_name})
    tell("INFO", f"connected to {who}; waiting for the session's name")
    announcement = messages.next("announce", "the session's name")
    if announcement.get("session_key") != sync.key:
        _try_to_send(channel, {"status": "error", "reason": "session_key_mismatch"})
        theirs = short(repr(announcement.get("session_key")))
        raise SyncError(f"{who} announces the session key {theirs}, this PC has {sync.key!r} -> check the subject on both")
    name = announcement.get("session_name")
    problem = refusal(name) if isinstance(name, str) and name else f"{short(repr(name))} is no session name"
    if problem:
        _try_to_send(channel, {"status": "error", "reason": problem})
        channel.leave()
        raise SyncError(f"{who} announces a name that this PC cannot take: {problem}")
    assert isinstance(name, str)
    master = Peer(channel, time.monotonic(), short(announcement.get("master") or sync.master_host))
    master.read_own(announcement)
    acknowledgement: dict[str, Any] = {"status": "ack", "session_name": name, "node_name": sync.node_name}
    if master.is_ours:
        acknowledgement["openscope"] = sync.own
    try:
        channel.send(acknowledgement)
        completion = messages.next("complete", "the release of all nodes")
    except Gone as error:
        raise SyncError(f"{who} broke off after it had announced {name!r}: {error} -> start all PCs again") from None
    if completion.get("session_name", name) != name:
        raise SyncError(f"{who} announced {name!r}, then released {short(completion.get('session_name'))!r}")
    tell("INFO", f"session {name} agreed with {master.name}")
    me = Node(short(sync.node_name), "slave", socket.gethostname(), sync.program, "preparing")
    if not master.is_ours:
        channel.close()
        return Joined(name, me, [_node_of(master, "master")], [])
    master.heard = time.monotonic()
    master.early = list(messages.left)
    return Joined(name, me, [_node_of(master, "master")], [master])


class _Inbox:
    """The master's messages one by one, each within ``session_sync_ack_timeout_sec``."""

    def __init__(self, sync: Sync, channel: Channel, who: str) -> None:
        self._sync = sync
        self._channel = channel
        self._who = who
        self.left: deque[dict[str, Any]] = deque()

    def next(self, status: str, what: str) -> dict[str, Any]:
        message = self._wait(what)
        if message.get("status") == "error":
            raise SyncError(self._refused(message.get("reason")))
        if message.get("status") != status:
            raise SyncError(f"{self._who} sent {short(message)} in place of {what} -> is it a master of the same version?")
        return message

    def _refused(self, reason: Any) -> str:
        if reason == "session_key_mismatch":
            return (
                f"{self._who} refused this PC: its session key is not {self._sync.key!r}"
                " -> give both PCs the same subject, or the same session_sync_session_key"
            )
        return f"{self._who} ended the handshake: {short(reason, _TEXT_CHARS)}"

    def _wait(self, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._sync.ack_timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel.socket, selectors.EVENT_READ)
            while not self.left:
                if time.monotonic() > deadline:
                    raise SyncError(
                        f"{self._who} did not send {what} within {self._sync.ack_timeout_s:g} s (session_sync_ack_timeout_sec)"
                        " -> is it waiting for another PC? Start that one, or give more time"
                    )
                if selector.select(SLICE_S):
                    self.left.extend(self._receive())
        return self.left.popleft()

    def _receive(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._channel.receive()
        except Garbage as error:
            raise SyncError(
                f"{self._who} does not speak the session protocol: it sent {error} -> check session_sync_port on both PCs"
            ) from None
