"""What a rig remembers of its reports: which issue a fingerprint has, how often it occurred, how many issues it opened today.

One JSON file per rig, ``ledger.json`` in the state directory, replaced atomically and changed only under the outbox lock. It
saves requests and keeps limits; the truth is the list of issues, so a lost or damaged ledger costs a few requests.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..system import make_private_folder, write_json

LEDGER = "ledger.json"
MAX_FINGERPRINTS = 2000
MAX_REFUSALS = 50
#: Ids of reports that are remembered as counted; more than an outbox holds, and than a session makes.
MAX_REPORTS = 2000
KEEP_DAYS = 30


def day_of(now: float) -> str:
    """Return the UTC date of an epoch time, ``YYYY-MM-DD``."""
    return datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d")


class Ledger:
    """The ledger of one rig; :meth:`save` after every change that must outlive the process."""

    def __init__(self, state_directory: Path) -> None:
        self.path = Path(state_directory) / LEDGER
        self.data: dict[str, Any] = {"version": 1, "repos": {}, "refused": [], "not_before": {}, "reports": []}
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            data = None
        if not isinstance(data, dict) or data.get("version") != 1:
            self._set_aside()
            return
        for key, default in self.data.items():
            if isinstance(data.get(key), type(default)):
                self.data[key] = data[key]

    def _set_aside(self) -> None:
        try:
            self.path.replace(self.path.with_suffix(".damaged.json"))
        except OSError:
            return

    def save(self) -> None:
        """Write the file.

        Raises:
            OSError: the disk is full or the directory is gone.
        """
        make_private_folder(self.path.parent)
        write_json(self.path, self.data, private=True)

    def repo(self, api_base_url: str, repo: str) -> dict[str, Any]:
        """Return what is remembered of a repository: ``fingerprints``, ``opened`` per day, ``anchor`` …"""
        entry: dict[str, Any] = self.data["repos"].setdefault(f"{api_base_url.rstrip('/')} {repo.lower()}", {})
        for key in ("fingerprints", "opened", "overflow"):
            if not isinstance(entry.get(key), dict):
                entry[key] = {}
        return entry

    def occurrence(self, repo: dict[str, Any], fingerprint: str, at: str, report_id: str) -> dict[str, Any]:
        """Count an occurrence, the same report only once, and return the fingerprint's entry."""
        known: dict[str, dict[str, Any]] = repo["fingerprints"]
        entry = known.setdefault(fingerprint, {"number": None, "url": None, "count": 0, "first_at": at, "comment_day": ""})
        if not self.knows(report_id) or not entry.get("count"):
            entry["count"] = int(entry.get("count") or 0) + 1
            entry["last_at"] = at
            self.remember(report_id)
        while len(known) > MAX_FINGERPRINTS:
            del known[min(known, key=lambda name: str(known[name].get("last_at") or ""))]
        return entry

    def knows(self, report_id: str) -> bool:
        """Tell whether a report was counted or refused already, so that it must not be put into the outbox again."""
        return report_id in self.data["reports"]

    def remember(self, report_id: str) -> None:
        """Keep a report's id for :meth:`knows`."""
        if not self.knows(report_id):
            self.data["reports"] = [*self.data["reports"], report_id][-MAX_REPORTS:]

    def opened_on(self, repo: dict[str, Any], day: str) -> int:
        """Return how many issues this rig opened on a day."""
        return int(repo["opened"].get(day, 0))

    def count_opened(self, repo: dict[str, Any], day: str) -> None:
        """Count a new issue; days long gone are forgotten."""
        repo["opened"][day] = self.opened_on(repo, day) + 1
        for table in ("opened", "overflow"):
            for old in sorted(repo[table])[:-KEEP_DAYS]:
                del repo[table][old]

    def refused(self, answer: dict[str, Any], at: str) -> None:
        """Remember a final refusal."""
        self.data["refused"] = [*self.data["refused"], {**answer, "at": at}][-MAX_REFUSALS:]

    def not_before(self, api_base_url: str) -> float:
        """Return the epoch time before which the server asked not to be called; 0 for none."""
        try:
            return float(self.data["not_before"].get(api_base_url.rstrip("/"), 0.0))
        except (TypeError, ValueError):
            return 0.0

    def delay(self, api_base_url: str, until: float) -> None:
        """Remember that the server must not be called before ``until`` (epoch seconds)."""
        self.data["not_before"][api_base_url.rstrip("/")] = until
