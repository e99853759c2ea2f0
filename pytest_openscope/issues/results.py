"""What became of a report, back in the session's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system import now_iso, write_atomic, write_json

#: The states of a report that are final for the occurrence; ``queued`` is not.
FINAL = ("created", "commented", "reopened", "known", "refused")


def result(report: Mapping[str, Any], status: str, **more: Any) -> dict[str, Any]:
    """Return the answer for one report, as sessions receive it."""
    answer = {
        "fingerprint": report["fingerprint"],
        "status": status,
        "issue_url": None,
        "issue_number": None,
        "reason": "",
        "occurrence": report.get("state", {}).get("occurrence"),
    }
    answer.update(more)
    return answer


def write_back(path: Path, answer: Mapping[str, Any]) -> bool:
    """Put an answer into ``debug_state.json`` under ``github``, atomically; False when the file is not there any more.

    The documented keys describe the session's first report; every report's answer stands in ``github.reports``.
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(state, dict):
        return False
    github = state.get("github")
    github = dict(github) if isinstance(github, dict) else {}
    entry = {**answer, "reported_at": now_iso() if answer.get("issue_url") else None}
    known = github.get("reports")
    reports = [item for item in known if isinstance(item, dict)] if isinstance(known, list) else []
    for position, item in enumerate(reports):
        if item.get("fingerprint") == answer["fingerprint"]:
            reports[position] = entry
            break
    else:
        reports.append(entry)
    state["github"] = {**github, **reports[0], "reports": reports}
    try:
        write_json(path, state)
    except OSError:
        return False
    return True


def keep_copy(path: Path, title: str, text: str, issue_url: str = "") -> None:
    """Keep what was sent beside ``debug_state.json``; a session folder that is gone keeps nothing."""
    if not path.parent.is_dir():
        return
    head = f"<!-- {issue_url} -->\n" if issue_url else ""
    try:
        write_atomic(path, f"{head}# {title}\n\n{text}".encode("utf-8", "replace"), private=True)
    except OSError:
        return
