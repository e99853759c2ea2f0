"""The session's side of the other PCs: what happens here is told to them, what happens there may stop this session."""

from __future__ import annotations

import socket
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import __version__
from ..log import mask_text
from ..records import Outcome, Phase, is_folder_name, name_problem, session_name
from .handshake import Joined, Sync, SyncError, gather, join
from .node_wire import Node, short
from .nodes import Nodes
from .operator import say_at_once

if TYPE_CHECKING:
    from .state import SessionState

_LOGGER = "pytest_openscope.nodes"
_REASON_CHARS = 300
_MASKED_CHARS = 10_000
#: A wait at the end that is shorter is not worth a word.
_UNTOLD_S = 0.5
_ASK_BYPASS = "Session sync is enabled (role: {role}). Press 'b' to bypass or Enter to continue."


def meet_other_nodes(session: SessionState, root: Path, given: str | None) -> OtherNodes | None:
    """Come together with the other PCs, as ``session_sync_role`` says; None where this session has none.

    The session, not open yet, takes its name from the result; ``given`` is the name that it would have without the others.

    Raises:
        pytest.UsageError: they did not come together.
    """
    role = session.settings.session_sync_role
    if role is None or session.validating or session.dry_run:
        return None

    tell = partial(_tell, session)
    try:
        if _is_bypassed(session, role):
            tell("WARNING", "the operator bypassed the session sync: this PC goes on without the others")
            return OtherNodes(session, None)
        sync = _sync_of(session)
        if role == "master":
            return OtherNodes(session, gather(sync, _name_to_announce(session, root, given), tell))
        return OtherNodes(session, join(sync, lambda name: _refusal(name, root), tell))
    except SyncError as error:
        remedy = "to run without the other PCs: --param session_sync_role=null"
        raise pytest.UsageError(f"session_sync_role {role}: {error}; {remedy}") from None


def _tell(session: SessionState, level: str, text: str) -> None:
    session.log.write(level, _LOGGER, text)
    say_at_once(session.config, text)


def _is_bypassed(session: SessionState, role: str) -> bool:
    settings, operator = session.settings, session.operator
    if not settings.session_sync_allow_bypass or not operator.available:
        return False
    question = (settings.session_sync_bypass_prompt or _ASK_BYPASS).replace("{role}", role)
    try:
        return operator.ask(question).strip().lower() in ("b", "bypass")
    except EOFError:
        return False


def _sync_of(session: SessionState) -> Sync:
    settings = session.settings
    key = settings.session_sync_session_key or _parameter(session, settings.session_sync_key_param)
    if not key:
        raise SyncError(f"session_sync_key_param {settings.session_sync_key_param} has no value -> give it one")
    return Sync(
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
    now = datetime.now()
    names = (session_name(settings.subject_id or "subject", now + timedelta(seconds=second)) for second in range(3600))
    return next(name for name in names if not (root / name).exists())


def _refusal(name: str, root: Path) -> str:
    if not is_folder_name(name):
        return f"{short(repr(name))} is no folder name"
    if problem := name_problem(name):
        return f"{short(repr(name))} {problem}"
    return f"the session folder {root / name} exists, and nothing is ever overwritten" if (root / name).exists() else ""


class OtherNodes:
    """What is said to the other nodes, and what they say to this session; says nothing where the operator bypassed them.

    Attributes:
        session_name: what all have agreed on; None where the operator bypassed it.
    """

    def __init__(self, session: SessionState, joined: Joined | None) -> None:
        self._session = session
        self._nodes: Nodes | None = None
        if joined is not None:
            self._nodes = Nodes(joined, session.settings.session_sync_silence_sec, self._on_change, self._keep)
        self._told = self._asked_to_start = False
        self.session_name = joined.session_name if joined else None

    def begin(self) -> None:
        """Start to listen, once there is a record to keep what is heard."""
        self._keep(self._nodes.table if self._nodes is not None else ())
        if self._nodes is not None:
            self._nodes.say(session_folder=str(self._session.folder))
            self._nodes.begin()

    def close(self) -> None:
        """Give the connections up: the session did not come to its beginning."""
        if self._nodes is not None:
            self._nodes.close()

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
        _tell(session, "WARNING", f"{text}; going on without (session_sync_on_failure: continue)")

    def tell_failure(self, cause: str) -> None:
        """Tell the others that this node fails or is stopped; the first time counts. May be called in a signal handler."""
        if not self._acquisition_is_over():
            self._tell_fault(cause)

    def _tell_fault(self, cause: str) -> None:
        if self._nodes is not None and not self._told:
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
                _tell(session, "INFO", f"waiting for {', '.join(late)} to end (at most {limit_s:g} s; Ctrl-C to go on)")
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
        session, nodes = self._session, self._nodes
        kept = {
            "role": session.settings.session_sync_role,
            "node": nodes.me.name if nodes is not None else None,
            "bypassed": nodes is None,
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
            _tell(self._session, "WARNING", f"{text}; this node goes on")

    def _stops_this(self) -> bool:
        """Tell whether another node's fault ends this session's steps, too: not once they have ended or are being stopped."""
        session = self._session
        if session.settings.session_sync_on_failure != "stop" or session.interrupts.count or self._told:
            return False
        return not self._acquisition_is_over()

    def _acquisition_is_over(self) -> bool:
        return self._session.ending or any(step.phase is Phase.POST_ACQUISITION for step in self._session.record.steps)
