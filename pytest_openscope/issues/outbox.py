"""What lies on the rig's disk: reports that wait to be sent, what was said about them, and what the rig remembers.

``<state_directory>/outbox/*.json`` holds one report each, whole before anybody tries to send it. ``ledger.json`` beside it says
which issue a fingerprint has, how often it occurred, and how many issues the rig opened today. It saves requests and keeps
limits; the truth is the list of issues, so a lost or damaged ledger costs a few requests. What became of a report is written
back into its session's folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from ..system import (
    FileLock,
    make_private_folder,
    now_iso,
    patiently,
    read_json,
    remove_file,
    replace_file,
    update_json,
    write_atomic,
    write_json,
)
from .client import Timing

OUTBOX = "outbox"
LEDGER = "ledger.json"
#: A rig that fails without end while the server is away keeps the newest reports.
MAX_REPORTS = 200
MAX_FINGERPRINTS = 2000
MAX_REFUSALS = 50
#: Ids of reports that are remembered as counted; more than an outbox holds, and than a session makes.
MAX_REMEMBERED = 2000
KEEP_DAYS = 30


def enqueue(state_directory: Path, report: dict[str, Any]) -> Path:
    """Put a report that is not known yet (:func:`is_known`) into the outbox, atomically and flushed to disk; return its file.

    Raises:
        OSError: the state directory cannot be written.
    """
    folder = state_directory / OUTBOX
    make_private_folder(state_directory)
    make_private_folder(folder)
    # Later than any in the folder: a clock may stand still meanwhile, or go back.
    before = [path.name.partition("-")[0] for path in folder.glob("*.json")]
    stamp = max([time.time_ns(), *(int(text) + 1 for text in before if text.isdecimal())])
    path = folder / f"{stamp:021d}-{report['fingerprint'].replace(':', '_')}-{report['id']}.json"
    write_json(path, report, private=True)
    for old in sorted(folder.glob("*.json"))[:-MAX_REPORTS]:
        remove_file(old)
    return path


def is_known(state_directory: Path, report: Mapping[str, Any]) -> bool:
    """Tell whether a report was put into the outbox before, be it waiting, sent or refused."""
    # In this order: the ledger knows a report before its file is removed.
    return any((state_directory / OUTBOX).glob(f"*-{report['id']}.json")) or Ledger(state_directory).knows(report["id"])


def list_reports(state_directory: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the waiting reports, oldest first; a damaged file is set aside under another name."""
    found = []
    for path in sorted((state_directory / OUTBOX).glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            report["state"], report["settings"], report["fingerprint"], report["id"]
        except OSError:
            continue
        except (ValueError, KeyError, TypeError):
            patiently(partial(path.rename, path.with_suffix(".damaged")))
            continue
        found.append((path, report))
    return found


def waiting(state_directory: Path) -> bool:
    """Tell whether anything lies in the outbox."""
    return any((state_directory / OUTBOX).glob("*.json"))


def drop(state_directory: Path, wanted: str) -> list[dict[str, Any]]:
    """Remove the reports whose id or fingerprint begins with ``wanted`` (``all`` for every one), and tell their sessions.

    Raises:
        TimeoutError: another process is sending.
    """
    lock = lock_of(state_directory)
    if not lock.acquire(5.0):
        raise TimeoutError("another process is sending the outbox")
    dropped = []
    with lock:
        ledger = Ledger(state_directory)
        for path, report in list_reports(state_directory):
            if wanted == "all" or report["id"].startswith(wanted) or report["fingerprint"].startswith(wanted):
                remove(path, report, ledger)
                if not report["state"].get("number"):
                    write_back(Path(report["debug_state"]), result(report, "refused", reason="dropped by hand"))
                dropped.append(report)
    return dropped


def lock_of(state_directory: Path) -> FileLock:
    """Return the lock of whoever sends or drops reports; the ledger is changed under it only."""
    return FileLock(state_directory / OUTBOX / ".lock")


def remove(path: Path, report: Mapping[str, Any], ledger: Ledger) -> None:
    """Take a report out of the outbox for good; the ledger knows it before its file is gone."""
    ledger.remember(report["id"])
    ledger.save()
    remove_file(path)


def due(report: Mapping[str, Any], ledger: Ledger) -> float:
    """Return when a report is tried next, in epoch seconds."""
    return max(float(report["state"]["next_try"]), ledger.not_before(report["settings"]["api_base_url"]))


def postpone(report: dict[str, Any], reason: str, timing: Timing, now: float, wait_s: float = 0.0) -> dict[str, Any] | None:
    """Set when a report is tried again after a passing fault: after ``wait_s``, else after twice the time of the fault before.

    Return the answer for its session; one that has its issue already, and only settles, has nothing new to tell.
    """
    state = report["state"]
    if not wait_s:
        first, longest = timing.retry_s
        wait_s = min(longest, first * 2 ** min(state["attempts"], 30))
        state["attempts"] += 1
    state.update(next_try=now + wait_s, reason=reason)
    return None if state.get("number") else result(report, "queued", reason=reason)


def day_of(now: float) -> str:
    """Return the UTC date of an epoch time, ``YYYY-MM-DD``."""
    return datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d")


class Ledger:
    """The ledger of one rig; :meth:`save` after every change that must outlive the process."""

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / LEDGER
        self.data: dict[str, Any] = {"version": 1, "repos": {}, "refused": [], "not_before": {}, "reports": []}
        if not self.path.exists():
            # Whoever only reads has no lock: one that comes into being now must not be taken for a damaged one.
            return
        data = read_json(self.path) or {}
        if data.get("version") == 1:
            self.data.update(data)
            return
        with suppress(OSError):
            replace_file(self.path, self.path.with_suffix(".damaged.json"))

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: the disk is full or the directory is gone.
        """
        make_private_folder(self.path.parent)
        write_json(self.path, self.data, private=True)

    def repo(self, api_base_url: str, repo: str) -> dict[str, Any]:
        """Return what is remembered of a repository: ``fingerprints``, ``opened`` per day, ``anchor`` …"""
        new: dict[str, Any] = {"fingerprints": {}, "opened": {}, "overflow": {}}
        entry: dict[str, Any] = self.data["repos"].setdefault(f"{api_base_url.rstrip('/')} {repo.lower()}", new)
        return entry

    def occurrence(self, repo: dict[str, Any], fingerprint: str, at: str, report_id: str) -> dict[str, Any]:
        """Count an occurrence, the same report only once, and return the fingerprint's entry."""
        known: dict[str, dict[str, Any]] = repo["fingerprints"]
        entry = known.setdefault(fingerprint, {"number": None, "url": None, "count": 0, "first_at": at, "comment_day": ""})
        if not self.knows(report_id) or not entry["count"]:
            entry["count"] += 1
            entry["last_at"] = at
            self.remember(report_id)
        while len(known) > MAX_FINGERPRINTS:
            del known[min(known, key=lambda name: known[name]["last_at"])]
        return entry

    def knows(self, report_id: str) -> bool:
        """Tell whether a report was counted or refused already, so that it must not be put into the outbox again."""
        return report_id in self.data["reports"]

    def remember(self, report_id: str) -> None:
        """Keep a report's id for :meth:`knows`."""
        if not self.knows(report_id):
            self.data["reports"] = [*self.data["reports"], report_id][-MAX_REMEMBERED:]

    def count_opened(self, repo: dict[str, Any], day: str) -> None:
        """Count a new issue; days long gone are forgotten."""
        repo["opened"][day] = repo["opened"].get(day, 0) + 1
        for table in (repo["opened"], repo["overflow"]):
            for old in sorted(table)[:-KEEP_DAYS]:
                del table[old]

    def refused(self, answer: dict[str, Any], at: str) -> None:
        """Remember a final refusal."""
        self.data["refused"] = [*self.data["refused"], {**answer, "at": at}][-MAX_REFUSALS:]

    def not_before(self, api_base_url: str) -> float:
        """Return the epoch time before which the server asked not to be called; 0 for none."""
        return float(self.data["not_before"].get(api_base_url.rstrip("/"), 0.0))

    def delay(self, api_base_url: str, until: float) -> None:
        """Remember that the server must not be called before ``until`` (epoch seconds)."""
        self.data["not_before"][api_base_url.rstrip("/")] = until


def result(report: Mapping[str, Any], status: str, **more: Any) -> dict[str, Any]:
    """Return the answer for one report, as sessions receive it."""
    return {
        "fingerprint": report["fingerprint"],
        "status": status,
        "issue_url": None,
        "issue_number": None,
        "reason": "",
        "occurrence": report["state"].get("occurrence"),
        **more,
    }


def write_back(path: Path, answer: Mapping[str, Any]) -> bool:
    """Put an answer into ``debug_state.json`` under ``github``, atomically; False when the file is not there any more.

    The documented keys describe the session's first report; every report's answer stands in ``github.reports``.
    """
    entry = {**answer, "reported_at": now_iso() if answer.get("issue_url") else None}

    def put(state: dict[str, Any]) -> None:
        github = state.get("github") or {}
        reports = {item["fingerprint"]: item for item in github.get("reports", [])}
        reports[answer["fingerprint"]] = entry
        told = list(reports.values())
        state["github"] = {**github, **told[0], "reports": told}

    try:
        return update_json(path, put)
    except OSError:
        return False


def keep_copy(path: Path, title: str, text: str) -> None:
    """Keep what was sent beside ``debug_state.json``; a session folder that is gone keeps nothing."""
    if path.parent.is_dir():
        with suppress(OSError):
            write_atomic(path, f"# {title}\n\n{text}".encode("utf-8", "replace"), private=True)
