"""What every stage of a report needs: comments and issues that are never posted twice, answers, and what the rig remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import GithubIssueSettings
from .client import Api, LimitedError, RefusedError, TransientError
from .find import Finder, label_names
from .ledger import Ledger, day_of
from .results import result
from .settings import Timing
from .text import occurrence_comment

#: Of all rigs together on one issue.
MAX_COMMENTS = 400


class Dealings:
    """Dealings with one repository about one report at a time.

    Args:
        now: the time, in epoch seconds.
        save: puts a changed report on disk; called before every write whose answer may be lost.
        keep_copy: keeps what is sent, ``(report, title, text)``.
        token: masked wherever it might stand.
    """

    def __init__(
        self,
        api: Api,
        ledger: Ledger,
        timing: Timing,
        now: Callable[[], float],
        save: Callable[[dict[str, Any]], None],
        keep_copy: Callable[[dict[str, Any], str, str], None],
        token: str = "",
    ) -> None:
        self.api = api
        self.ledger = ledger
        self.timing = timing
        self.now = now
        self.save = save
        self.keep_copy = keep_copy
        self.token = token

    def begin(self, report: dict[str, Any]) -> None:
        """Turn to a report."""
        self.settings = GithubIssueSettings.of(report["settings"])
        self.remembered = self.ledger.repo(self.settings.api_base_url, self.settings.repo)
        self.notes: list[str] = []
        label = self.settings.labels[0] if self.settings.labels else ""
        self.finder = Finder(self.api, label, self.remembered)

    def count_in_comment(
        self, report: dict[str, Any], entry: dict[str, Any], issue: dict[str, Any], lead: str = "Seen again"
    ) -> bool:
        """Add the rig's count, unless this rig said something on this defect today or the issue is full of comments."""
        today = day_of(self.now())
        if entry.get("comment_day") == today or int(entry.get("comments") or 0) >= self.settings.max_comments_per_issue:
            return False
        if int(issue.get("comments") or 0) >= MAX_COMMENTS:
            return False
        text = occurrence_comment(
            rig=report["rig"],
            count=int(entry["count"]),
            first_at=str(entry["first_at"]),
            last_at=str(entry.get("last_at") or report["occurred_at"]),
            version_line=report["version_line"],
            lead=lead,
        )
        self.comment(report, int(issue["number"]), text)
        entry["comment_day"] = today
        entry["comments"] = int(entry.get("comments") or 0) + 1
        self.keep_copy(report, f"Comment on {issue['html_url']}", text)
        return True

    def comment(self, report: dict[str, Any], number: int, text: str) -> None:
        """Post a comment; one whose answer was lost before is looked up first."""
        mark = f"Report: `{report['id']}`"
        state = report["state"]
        pending = state.setdefault("commenting", {})
        since = pending.get(str(number))
        if since is not None:
            if any(mark in str(comment.get("body") or "") for comment in self.api.comments(number)):
                return
            if self.now() < since + self.timing.trust_s:
                raise TransientError(f"the answer to a comment on #{number} was lost; it is being looked up")
        pending[str(number)] = self.now()
        self.save(report)
        try:
            self.api.send("POST", f"/issues/{number}/comments", {"body": self.masked(f"{text}\n{mark}\n")})
        except (RefusedError, LimitedError):
            del pending[str(number)]
            raise
        except TransientError as problem:
            if problem.executed is False:
                del pending[str(number)]
            raise

    def answer(self, report: dict[str, Any], status: str, issue: dict[str, Any], reason: str = "") -> dict[str, Any]:
        """Return the answer that points to an issue."""
        return result(report, status, issue_url=issue["html_url"], issue_number=issue["number"], reason=reason)

    def masked(self, text: str) -> str:
        """Return a text without the token, the last guard before it is sent."""
        return text.replace(self.token, "***") if self.token else text

    def post(self, report: dict[str, Any], title: str, text: str) -> dict[str, Any]:
        """Open an issue; from before the request on, the report says on disk that one may exist.

        Raises:
            TransientError: the answer was lost; whether the issue exists must be looked up.
        """
        title, text = self.masked(title), self.masked(text)
        report["state"]["posting_at"] = self.now()
        self.save(report)
        self.keep_copy(report, title, text)
        try:
            issue = self.api.send("POST", "/issues", {"title": title, "body": text, "labels": list(self.settings.labels)})
            if not isinstance(issue.get("number"), int):
                raise TransientError("POST issue: the answer is not an issue")
        except (RefusedError, LimitedError):
            report["state"]["posting_at"] = None
            raise
        except TransientError as problem:
            if problem.executed is False:
                report["state"]["posting_at"] = None
            raise
        missing = set(self.settings.labels) - label_names(issue)
        if missing:
            self.remembered["labels_dropped"] = True
            self.notes.append(f"the server dropped the label {', '.join(sorted(missing))}: the token has no right to set it")
        return issue
