"""``python -m pytest_openscope outbox`` and ``… github-check``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..issues import DEFAULT_API, DEFAULT_TOKEN_ENV, ReportSettings
from .parser import EXIT_USAGE, CommandParser, tell

EXIT_OK, EXIT_FOUND = 0, 1


def outbox_main(argv: Sequence[str]) -> int:
    """List, send or drop the reports that wait on this rig; 0 when nothing is left or wrong, 1 when something is."""
    parser = CommandParser("outbox", "reports that wait to be sent")
    parser.add_argument("action", nargs="?", choices=("list", "send", "drop"), default="list")
    parser.add_argument("which", nargs="?", default="", help="drop: beginning of a report's id or fingerprint, or 'all'")
    _add_rig(parser)
    parser.add_argument("--state-directory", type=Path, help="the rig's state directory, instead of a rig configuration")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="send: stop after this time (default 120)")
    options = parser.parse_args(list(argv))
    state = options.state_directory
    if state is None:
        configuration = _configuration(options.rig_config)
        if configuration is None:
            return EXIT_USAGE
        state = configuration.rig.state_directory
    if options.action == "send":
        return _send(state, options.timeout)
    if options.action == "drop":
        return _drop(state, options.which)
    return _list(state)


def _add_rig(parser: CommandParser) -> None:
    given = os.environ.get("OPENSCOPE_RIG_CONFIG")
    parser.add_argument("--rig-config", type=Path, default=Path(given) if given else None, help="rig configuration file")


def _configuration(rig_config: Path | None, params: Sequence[Path] = ()) -> Any:
    """Return the configuration as a session would have it; None, with the mistakes told, when there is none."""
    if rig_config is None:
        tell(["--rig-config: no rig configuration is given -> add --rig-config FILE"])
        return None
    from ..config import ConfigRequest, load

    loaded = load(
        ConfigRequest(
            rig_config=rig_config,
            rig_config_where="--rig-config",
            params_files=tuple(params),
            param_overrides=(),
            named={},
            options={},
            dry_run=True,
            no_input=True,
            cwd=Path.cwd(),
            environ=dict(os.environ),
        )
    )
    if loaded.configuration is None:
        tell(loaded.mistakes)
    return loaded.configuration


def _list(state: Path) -> int:
    from ..issues import Ledger, list_reports

    reports = list_reports(state)
    ledger = Ledger(state)
    for _, report in reports:
        base = str(report["settings"].get("api_base_url") or DEFAULT_API)
        due = max(float(report["state"].get("next_try") or 0.0), ledger.not_before(base))
        stage = "sent, settling" if report["state"].get("number") else report["state"].get("reason") or "not sent yet"
        wait = f"in {due - time.time():.0f} s" if due > time.time() else "due"
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
    from ..issues import drain, list_reports
    from ..sidecar import LateAnswers

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

    late = LateAnswers()
    try:
        drained = drain(state, timeout_s, on_result=told, on_written=late.written, at_once=True)
    finally:
        _follow(late)
    if drained.busy:
        print("another process is sending this outbox", file=sys.stderr)
        return EXIT_FOUND
    if drained.left:
        when = "" if drained.next_due is None else f", the next one in {max(0.0, drained.next_due - time.time()):.0f} s"
        print(f"{drained.left} left{when}")
    return EXIT_FOUND if drained.left or refused else EXIT_OK


def _drop(state: Path, which: str) -> int:
    from ..issues import drop
    from ..sidecar import LateAnswers

    if not which:
        tell(["outbox drop: no report is named -> give the beginning of its id or fingerprint, or all"])
        return EXIT_USAGE
    try:
        dropped = drop(state, which)
    except TimeoutError as problem:
        print(problem, file=sys.stderr)
        return EXIT_FOUND
    late = LateAnswers()
    for report in dropped:
        late.written(Path(report["debug_state"]), {"status": "refused"})
        print(f"dropped {report['id']}  {report['title']}")
    if not dropped:
        print(f"nothing in the outbox begins with {which!r}", file=sys.stderr)
    _follow(late)
    return EXIT_OK if dropped else EXIT_FOUND


def _follow(late: Any) -> None:
    late.close()
    for name in late.started:
        print(f"{name}: its copy in the central mirror follows in the background")


def github_check_main(argv: Sequence[str]) -> int:
    """Tell whether reports would arrive; 0 when they would, 1 when not. Creates nothing."""
    parser = CommandParser("github-check", "are token, repository, permission and labels right? (creates nothing)")
    _add_rig(parser)
    parser.add_argument("--params", type=Path, action="append", default=[], help="parameter file with a github_issue block")
    parser.add_argument("--repo", help="owner/name, instead of a configuration")
    parser.add_argument("--token-env", help=f"environment variable that holds the token (default {DEFAULT_TOKEN_ENV})")
    parser.add_argument("--api-base-url", help=f"default {DEFAULT_API}")
    parser.add_argument("--label", action="append", help="label to look for (default auto-report)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(list(argv))
    values: dict[str, Any] = {}
    if options.rig_config is not None or not options.repo:
        configuration = _configuration(options.rig_config, options.params)
        if configuration is None:
            return EXIT_USAGE
        block = configuration.settings.github_issue
        if block is None and not options.repo:
            print("no github_issue block is configured; nothing would be reported", file=sys.stderr)
            return EXIT_FOUND
        values = block.as_json() if block is not None else {}
    given = {
        "repo": options.repo,
        "token_env": options.token_env,
        "api_base_url": options.api_base_url,
        "labels": options.label,
    }
    values.update({key: value for key, value in given.items() if value is not None})
    return _report_check(ReportSettings.from_mapping(values), options.json)


def _report_check(settings: ReportSettings, as_json: bool) -> int:
    from ..issues import ERROR, check_access

    findings = check_access(settings, os.environ.get(settings.token_env, ""))
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        for item in findings:
            print(f"{item['level'].upper():8} {item['text']}")
    return EXIT_FOUND if any(item["level"] == ERROR for item in findings) else EXIT_OK
