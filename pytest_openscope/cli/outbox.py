"""``openscope outbox``: lists, sends or drops the failure reports that wait on this rig."""

from __future__ import annotations

import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..issues import Ledger, drain, drop, due, list_reports
from ..sidecar import LateAnswers
from .common import EXIT_FOUND, EXIT_OK, RigConfig, StateDirectory, WrongUse, read_configuration


class Action(str, Enum):
    """What is done with the reports."""

    LIST = "list"
    SEND = "send"
    DROP = "drop"


def outbox(
    action: Annotated[Action, typer.Argument(help="what to do with the reports")] = Action.LIST,
    which: Annotated[str, typer.Argument(help="drop: beginning of a report's id or fingerprint, or 'all'")] = "",
    rig_config: RigConfig = None,
    state_directory: StateDirectory = None,
    timeout: Annotated[float, typer.Option(help="send: stop after this time, in seconds", metavar="S")] = 120.0,
) -> int:
    """List, send or drop the reports that wait to be sent.

    Exit code 0: nothing is left or wrong; 1: something is; 4: wrong options.
    """
    state = state_directory or read_configuration(rig_config).rig.state_directory
    if action is Action.SEND:
        return _send(state, timeout)
    if action is Action.DROP:
        return _drop(state, which)
    return _list(state)


def _list(state: Path) -> int:
    reports = list_reports(state)
    ledger = Ledger(state)
    for _, report in reports:
        due_at = due(report, ledger)
        stage = "sent, settling" if report["state"].get("number") else report["state"].get("reason") or "not sent yet"
        wait = f"in {due_at - time.time():.0f} s" if due_at > time.time() else "due"
        print(
            f"{report['id']}  {report['fingerprint']}  {report['occurred_at'][:19]}  {report['settings'].get('repo')}  {wait}"
        )
        print(f"    {report['title']}\n    {stage}")
    for refusal in ledger.data["refused"][-5:]:
        print(f"refused: {refusal.get('fingerprint')}  {refusal.get('at', '')[:19]}  {refusal.get('reason')}")
    if not reports:
        print(f"nothing waits in {Path(state) / 'outbox'}")
    return EXIT_OK


def _send(state: Path, timeout_s: float) -> int:
    waiting = len(list_reports(state))
    if waiting:
        wait = "1 waits" if waiting == 1 else f"{waiting} wait"
        print(f"{wait}; trying for at most {timeout_s:g} s (--timeout)", flush=True)
    refused = []

    def told(answer: dict[str, Any]) -> None:
        refused.extend([answer] if answer["status"] == "refused" else [])
        print(
            f"{answer['fingerprint']}  {answer['status']}  {answer['issue_url'] or ''} {answer['reason']}".rstrip(), flush=True
        )

    with LateAnswers(tell=_say_that_it_follows) as late:
        drained = drain(state, timeout_s, on_result=told, on_written=late.written, at_once=True)
    if drained.busy:
        print("another process is sending this outbox", file=sys.stderr)
        return EXIT_FOUND
    if drained.left:
        when = "" if drained.next_due is None else f", the next one in {max(0.0, drained.next_due - time.time()):.0f} s"
        print(f"{drained.left} left{when}")
    return EXIT_FOUND if drained.left or refused else EXIT_OK


def _drop(state: Path, which: str) -> int:
    if not which:
        raise WrongUse("outbox drop: no report is named -> give the beginning of its id or fingerprint, or all")
    try:
        dropped = drop(state, which)
    except TimeoutError as problem:
        print(problem, file=sys.stderr)
        return EXIT_FOUND
    with LateAnswers(tell=_say_that_it_follows) as late:
        for report in dropped:
            late.written(Path(report["debug_state"]), {"status": "refused"})
            print(f"dropped {report['id']}  {report['title']}")
    if not dropped:
        print(f"nothing in the outbox begins with {which!r}", file=sys.stderr)
    return EXIT_OK if dropped else EXIT_FOUND


def _say_that_it_follows(name: str) -> None:
    print(f"{name}: its copy in the central mirror follows in the background")
