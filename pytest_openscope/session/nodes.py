"""The other PCs of a session: what they know of each other from the handshake to the end, and what it does to this session.

:class:`Nodes` keeps the connections that :mod:`.node_protocol` has made; :class:`OtherNodes` is the session's side of them.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import __version__
from ..log import mask_text
from ..records import Outcome, Phase, is_folder_name, name_problem, session_name
from ..system import on_fork
from .node_protocol import (
    CHUNK_BYTES,
    LINGER_S,
    SLICE_S,
    Garbage,
    Gone,
    Joined,
    Node,
    Peer,
    Sync,
    SyncError,
    gather,
    join,
    short,
)
from .operator import say_at_once

if TYPE_CHECKING:
    from .state import SessionState

_LOGGER = "pytest_openscope.nodes"
#: Signs of life within the time after which a node counts as silent.
_BEATS = 5
_REASON_CHARS = 300
_MASKED_CHARS = 10_000
#: A wait at the end that is shorter is not worth a word.
_UNTOLD_S = 0.5
_ASK_BYPASS = "Session sync is enabled (role: {role}). Press 'b' to bypass or Enter to continue."


class Nodes:
    """What the nodes of one session know of each other from the handshake to the end: one thread, no waiting for a network.

    The master is the hub. All state belongs to the thread; others read :attr:`me`, :attr:`others` and :attr:`table`, and leave
    what they have to say in :meth:`say`, which may be called in a signal handler.

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
        self._me = joined.me
        self._others = {node.name: node for node in joined.others}
        self._peers = list(joined.peers)
        self._silence_s = silence_s
        self._on_change = on_change
        self._on_table = on_table
        silences = [silence_s, *(peer.silence_s for peer in self._peers if peer.silence_s)]
        self._beat_s = min(silences) / _BEATS
        self._said: deque[dict[str, Any]] = deque()
        self._started = threading.Event()
        self._leaving = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._forgotten = False
        self._sent: tuple[Node, ...] = ()
        self.table: tuple[Node, ...] = self._all()
        self.others: tuple[Node, ...] = tuple(self._others.values())
        self._thread = threading.Thread(target=self._run, name="openscope-nodes", daemon=True)

    # -- for the session's threads

    def begin(self) -> None:
        """Start the thread."""
        now = time.monotonic()
        for peer in self._peers:
            peer.heard = now  # until here nobody had to listen
            self._selector.register(peer.channel.socket, selectors.EVENT_READ, peer)
        self._selector.register(self._woken, selectors.EVENT_READ)
        on_fork(self, Nodes._forget)
        self._thread.start()

    @property
    def me(self) -> Node:
        """This node, as the others see it."""
        return self._me

    def say(self, **changes: Any) -> None:
        """Tell all nodes what has changed on this one: fields of :class:`.node_protocol.Node`."""
        self._said.append(changes)
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

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
        self.say()
        if self._thread.ident is not None:
            self._thread.join(LINGER_S * (len(self._peers) + 1))

    # -- the thread

    def _run(self) -> None:
        next_beat = time.monotonic()
        while not self._forgotten:
            for key, _ in self._selector.select(max(0.0, min(SLICE_S, next_beat - time.monotonic()))):
                if key.data is None:
                    with contextlib.suppress(OSError):
                        self._woken.recv(CHUNK_BYTES)
                else:
                    self._hear(key.data)
            while self._said:
                self._me = replace(self._me, **self._said.popleft())
            for peer in [one for one in self._peers if one.early]:
                self._take(peer, peer.early)
                peer.early = []
            self._look_for_silence()
            self._perhaps_start()
            if (table := self._all()) != self._sent or time.monotonic() >= next_beat:
                self._sent, next_beat = table, time.monotonic() + self._beat_s
                self._send_all()
            self._flush()
            # Seen by this node only now: who leaves because all have ended must have told the others.
            if (table := self._all()) != self.table:
                self.table, self.others = table, tuple(self._others.values())
                self._on_table(table)
            if self._leaving.is_set() and not self._said:
                break
        if not self._forgotten:
            for peer in self._peers:
                peer.channel.leave()
            self._close()

    def _all(self) -> tuple[Node, ...]:
        """Everybody, the master first."""
        return tuple(sorted((self._me, *self._others.values()), key=lambda node: (node.role != "master", node.name)))

    def _hear(self, peer: Peer) -> None:
        try:
            messages = peer.channel.receive()
        except (Gone, Garbage) as error:
            self._lose(peer, f"it sent {error}" if isinstance(error, Garbage) else str(error))
            return
        self._take(peer, messages)

    def _take(self, peer: Peer, messages: list[dict[str, Any]]) -> None:
        peer.heard = time.monotonic()
        try:
            for message in messages:
                if self._me.role == "master":
                    self._take_slave(peer, message)
                else:
                    self._take_all(message)
        except Garbage as error:
            self._lose(peer, f"it sent {error}")

    def _take_slave(self, peer: Peer, message: dict[str, Any]) -> None:
        known = self._others[peer.name]
        node = Node.from_json(message.get("node"))
        self._change(replace(node, name=peer.name, role="slave", program=known.program))

    def _take_all(self, message: dict[str, Any]) -> None:
        nodes = message.get("nodes")
        if not isinstance(nodes, list):
            raise Garbage(f"{short(message)} in place of the table of nodes")
        mine = short(message.get("you") or self._me.name)
        for node in map(Node.from_json, nodes):
            if node.name == mine:
                self._me = replace(self._me, name=mine)
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
        self._selector.unregister(peer.channel.socket)
        self._peers.remove(peer)
        peer.channel.close()
        node = self._others[peer.name] if peer.name in self._others else self._master()
        if node.state != "ended":
            self._change(replace(node, state="lost", reason=why))
        if self._me.role == "slave":
            for other in [one for one in self._others.values() if not one.is_over]:
                self._change(replace(other, state="unknown", reason=f"{node.name}, which told of it, has left"))

    def _master(self) -> Node:
        return next(node for node in self._others.values() if node.role == "master")

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        for peer in self._peers:
            node = self._others[peer.name] if peer.name in self._others else self._master()
            if now - peer.heard > self._silence_s and not node.is_over:
                self._change(replace(node, state="silent", reason=f"nothing was heard of it for {self._silence_s:g} s"))

    def _perhaps_start(self) -> None:
        """The master lets all begin once nobody prepares any more; a slave whose master has gone has nobody to wait for."""
        if self._started.is_set():
            self._start()  # of one that comes late
            return
        if self._me.role == "slave":
            if not self._peers and self._me.state == "ready":
                self._start()
            return
        all_nodes = self._all()
        preparing = any(node.state == "preparing" and not node.fault for node in all_nodes)
        if not preparing and any(node.state == "ready" for node in all_nodes):
            self._start()

    def _start(self) -> None:
        if self._me.state == "ready":
            self._me = replace(self._me, state="acquiring")
        self._started.set()

    def _send_all(self) -> None:
        for peer in list(self._peers):
            if self._me.role == "slave":
                message: dict[str, Any] = {"node": asdict(self._me)}
            else:
                nodes = [asdict(node) for node in self._all()]
                message = {"nodes": nodes, "you": peer.name, "started": self._started.is_set()}
            try:
                peer.channel.send(message)
            except Gone as error:
                self._lose(peer, str(error))

    def _flush(self) -> None:
        for peer in [one for one in self._peers if one.channel.unsent]:
            try:
                peer.channel.flush()
            except Gone as error:
                self._lose(peer, str(error))

    def _forget(self) -> None:
        """In a fork: its copies of the sockets would keep the connections open after this node has died."""
        self._forgotten = True
        self._close()

    def _close(self) -> None:
        for peer in self._peers:
            peer.channel.close()
        for end in (self._wake, self._woken):
            end.close()
        if not self._forgotten:
            self._selector.close()


# -- the session's side --------------------------------------------------------------------------------------------------


def meet_other_nodes(session: SessionState, root: Path, given: str | None) -> OtherNodes | None:
    """Come together with the other PCs, as ``session_sync_role`` says; None where this session has none.

    Args:
        session: not open yet; it takes its name from the result.
        root: where the session folder will be.
        given: the name that this PC's session would have without the others; None for a new one.

    Raises:
        pytest.UsageError: they did not come together.
    """
    role = session.settings.session_sync_role
    if role is None or session.validating or session.dry_run:
        return None

    def tell(level: str, text: str) -> None:
        session.log.write(level, _LOGGER, text)
        say_at_once(session.config, text)

    try:
        if _is_bypassed(session, role):
            tell("WARNING", "the operator bypassed the session sync: this PC goes on without the others")
            return OtherNodes(session, None)
        sync = _sync_of(session, role)
        if role == "master":
            return OtherNodes(session, gather(sync, _name_to_announce(session, root, given), tell))
        return OtherNodes(session, join(sync, lambda name: _refusal(name, root), tell))
    except SyncError as error:
        remedy = "to run without the other PCs: --param session_sync_role=null"
        raise pytest.UsageError(f"session_sync_role {role}: {error}; {remedy}") from None


def _is_bypassed(session: SessionState, role: str) -> bool:
    settings, operator = session.settings, session.operator
    if not settings.session_sync_allow_bypass or not operator.available:
        return False
    question = (settings.session_sync_bypass_prompt or _ASK_BYPASS).replace("{role}", role)
    try:
        return operator.ask(question).strip().lower() in ("b", "bypass")
    except EOFError:
        return False


def _sync_of(session: SessionState, role: str) -> Sync:
    settings = session.settings
    key = settings.session_sync_session_key or _parameter(session, settings.session_sync_key_param)
    if not key:
        raise SyncError(f"session_sync_key_param {settings.session_sync_key_param} has no value -> give it one")
    return Sync(
        role=role,
        node_name=settings.session_sync_node_name or socket.gethostname(),
        key=key,
        port=settings.session_sync_port or 0,
        bind_host=settings.session_sync_bind_host,
        master_host=settings.session_sync_master_host or "",
        expected_slaves=settings.session_sync_expected_slaves,
        timeout_s=settings.session_sync_timeout_sec,
        ack_timeout_s=settings.session_sync_ack_timeout_sec,
        retry_delay_s=settings.session_sync_retry_delay_sec,
        silence_s=settings.session_sync_silence_sec,
        program=f"pytest-openscope {__version__}",
    )


def _parameter(session: SessionState, name: str) -> str:
    """Return a parameter's value as all PCs write it; "" where it has none."""
    value = session.configuration.expander()(session.configuration.parameters.get(name))
    return "" if value is None or isinstance(value, (dict, list)) else str(value).strip()


def _name_to_announce(session: SessionState, root: Path, given: str | None) -> str:
    settings = session.settings
    if session.earlier is None:
        # A session that goes on has its earlier one's name with a number, whatever the files say.
        given = settings.session_sync_session_name or _parameter(session, settings.session_sync_name_param) or given
    if given:
        if problem := _refusal(given, root):
            raise SyncError(f"{problem} -> give another session name")
        return given
    from datetime import datetime, timedelta

    now = datetime.now()
    names = (session_name(settings.subject_id or "subject", now + timedelta(seconds=second)) for second in range(3600))
    return next(name for name in names if not (root / name).exists())


def _refusal(name: str, root: Path) -> str:
    """Say why no session of this PC can have that name."""
    if not is_folder_name(name):
        return f"{short(repr(name))} is no folder name"
    if problem := name_problem(name):
        return f"{short(repr(name))} {problem}"
    return f"the session folder {root / name} exists, and nothing is ever overwritten" if (root / name).exists() else ""


class OtherNodes:
    """The session's side: what happens here is told to the others, what happens there may stop this session.

    Attributes:
        session_name: what all have agreed on; None where the operator bypassed it.
    """

    def __init__(self, session: SessionState, joined: Joined | None) -> None:
        self._session = session
        self._joined = joined
        self._nodes: Nodes | None = None
        self._told = self._asked_to_start = False
        self.session_name = joined.session_name if joined else None

    def begin(self) -> None:
        """Start to listen, once there is a record to keep what is heard."""
        session, joined = self._session, self._joined
        if joined is None:
            self._keep(())
            return
        self._nodes = Nodes(joined, session.settings.session_sync_silence_sec, self._on_change, self._keep)
        self._keep(self._nodes.table)
        self._nodes.say(session_folder=str(session.folder))
        self._nodes.begin()

    def close(self) -> None:
        """Give the connections up: the session did not come to its beginning."""
        if self._joined is not None:
            self._joined.close()

    # -- what happens here

    def wait_for_start(self) -> None:
        """Begin the first acquisition step together with the others.

        Raises:
            RuntimeError: some were not ready in time, and ``session_sync_on_failure`` is ``stop``.
        """
        nodes, session = self._nodes, self._session
        if nodes is None or self._asked_to_start:
            return
        self._asked_to_start = True
        limit_s = session.settings.session_sync_timeout_sec
        session.log.write("INFO", _LOGGER, "ready to acquire; waiting for the other nodes")
        with session.watchdog.paused():
            late = nodes.wait_for_start(limit_s)
        if not late:
            session.log.write("INFO", _LOGGER, "all nodes start to acquire")
            return
        text = f"{', '.join(late)} not ready to acquire within {limit_s:g} s (session_sync_timeout_sec)"
        if session.settings.session_sync_on_failure == "stop":
            session.gate.stop(text)
            raise RuntimeError(text)
        self._tell("WARNING", f"{text}; going on without (session_sync_on_failure: continue)")

    def tell_failure(self, cause: str) -> None:
        """Tell the others that this node fails or is stopped; the first time counts. May be called in a signal handler."""
        if not self._acquisition_is_over():
            self._tell_fault(cause)

    def _tell_fault(self, cause: str) -> None:
        if self._nodes is None or self._told:
            return
        self._told = True
        fault = "stopped" if self._session.interrupts.count else "failed"
        self._nodes.say(fault=fault, reason=self._for_others(cause))

    def _for_others(self, text: str) -> str:
        """Return the first line of a text as it may leave this PC."""
        line = text[:_MASKED_CHARS].lstrip().partition("\n")[0]
        return short(mask_text(line, self._session.secrets), _REASON_CHARS)

    def end(self) -> None:
        """Tell the others how this node ended; its hardware is safe."""
        if self._nodes is None:
            return
        session = self._session
        failures = session.record.failures
        reason = self._for_others(failures[0].message) if failures else ""
        # A session that broke down between its steps (an internal error) has not closed its gate.
        broken = any(failure.phase is None for failure in failures)
        if broken or (session.outcome is not Outcome.PASSED and not session.gate.acquisition_begun):
            self._tell_fault(reason or "no step ran")
        more = {} if self._told else {"reason": reason}
        self._nodes.say(state="ended", outcome=str(session.outcome), **more)

    def wait_for_others(self) -> None:
        """Wait, for a bounded time, until all have ended, so that the table of outcomes is whole; then leave."""
        nodes, session = self._nodes, self._session
        if nodes is None:
            return
        limit_s, count = session.settings.session_sync_end_wait_sec, session.interrupts.count

        def enough() -> bool:
            return session.interrupts.count > count

        with session.watchdog.paused():
            late = nodes.wait_for_ends(min(_UNTOLD_S, limit_s), enough)
            if late and limit_s > _UNTOLD_S:
                self._tell("INFO", f"waiting for {', '.join(late)} to end (at most {limit_s:g} s; Ctrl-C to go on)")
                late = nodes.wait_for_ends(limit_s - _UNTOLD_S, enough)
        if late:
            text = f"{', '.join(late)} had not ended when this session did (session_sync_end_wait_sec {limit_s:g} s)"
            session.log.write("WARNING", _LOGGER, text)
        nodes.leave()
        self._keep(nodes.table)

    def withdraw(self) -> None:
        """Leave at once: the session is taken back, since its command line was a mistake."""
        if self._nodes is not None:
            self._tell_fault("its command line or its files hold a mistake; no step ran")
            self._nodes.say(state="ended", outcome=str(Outcome.ERROR))
            self._nodes.leave()

    # -- what happens there, in the thread of the nodes

    def _keep(self, table: tuple[Node, ...]) -> None:
        session = self._session
        me = self._nodes.me.name if self._nodes else None
        kept = {
            "role": session.settings.session_sync_role,
            "node": me,
            "bypassed": self._joined is None,
            "nodes": [asdict(node) for node in table],
        }
        session.guard("keeping the table of nodes", lambda: session.keep("session_sync", kept))

    def _on_change(self, before: Node, node: Node) -> None:
        self._session.guard("following another node", lambda: self._follow(before, node))

    def _follow(self, before: Node, node: Node) -> None:
        why = f": {node.reason}" if node.reason else ""
        fault = node.fault != before.fault
        if not fault and node.state not in ("lost", "silent"):
            how = f"{node.state} ({node.outcome})" if node.outcome else node.state
            self._session.log.write("INFO", _LOGGER, f"node {node.name}: {how}{why if node.state == 'unknown' else ''}")
            return
        text = f"node {node.name} {node.fault if fault else f'is {node.state}'}{why}"
        self._session.log.write("ERROR", _LOGGER, text)
        if self._stops_this():
            self._session.interrupts.request(text)
        else:
            self._tell("WARNING", f"{text}; this node goes on")

    def _stops_this(self) -> bool:
        """Tell whether another node's fault ends this session's steps, too: not once they have ended or are being stopped."""
        session = self._session
        if session.settings.session_sync_on_failure != "stop" or session.ending or session.interrupts.count or self._told:
            return False
        return not self._acquisition_is_over()

    def _acquisition_is_over(self) -> bool:
        return self._session.ending or any(step.phase is Phase.POST_ACQUISITION for step in self._session.record.steps)

    def _tell(self, level: str, text: str) -> None:
        self._session.log.write(level, _LOGGER, text)
        say_at_once(self._session.config, text)
