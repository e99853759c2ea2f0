"""What is done with one report: find the defect's issue or open one, count, and settle races without a coordinator.

A report goes through two stages. *New*: it is counted, and ends as a comment, a silent count, a reopened issue or a new one.
*Settling*, for a new issue only: lists lag, so others may have opened one for the same defect at the same time. The sender
looks again after some seconds, and after a time in which every list has caught up; the lowest open number wins, and who has a
higher one closes it, nobody else's. The lowest number sees no lower one, so it stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from .client import Api, LimitedError, RefusedError, TransientError
from .find import Finder, ensure_labels, label_names, set_anchor
from .ledger import Ledger, day_of
from .markdown import code
from .results import result
from .settings import ReportSettings, Timing
from .text import occurrence_comment, versions_in, with_count

#: A defect that comes back later than this after its closing gets an issue of its own.
REOPEN_DAYS = 30
#: Of all rigs together on one issue.
MAX_COMMENTS = 400


class Sender:
    """Advances reports of one repository by one attempt each.

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

    def advance(self, report: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Do what is due for a report; return the answer, if there is a new one, and whether the report is done with.

        Raises:
            RefusedError, LimitedError, TransientError: from the server; ``report["state"]`` says how far it came.
        """
        state = report["state"]
        self.settings = ReportSettings.from_mapping(report["settings"])
        self.remembered = self.ledger.repo(self.settings.api_base_url, self.settings.repo)
        self.notes: list[str] = []
        label = self.settings.labels[0] if self.settings.labels else ""
        self.finder = Finder(self.api, label, self.remembered)
        if state.get("number"):
            return self._settle(report)
        answer = self._new(report)
        if self.notes:
            answer["reason"] = "; ".join([*([answer["reason"]] if answer["reason"] else []), *self.notes])
        self.ledger.save()
        return answer, not state.get("number")

    # -- new

    def _new(self, report: dict[str, Any]) -> dict[str, Any]:
        state = report["state"]
        entry = self.remembered["fingerprints"].get(report["fingerprint"])
        if "occurrence" not in state or entry is None:
            entry = self.ledger.occurrence(self.remembered, report["fingerprint"], report["occurred_at"], report["id"])
            state["occurrence"] = entry["count"]
            self.ledger.save()
            self.save(report)
        self._warn_of_public(report)
        if state.get("posting_at"):
            lost = self._lost(report)
            if lost is not None:
                return lost
        issue = self._find(report, entry)
        if issue is None:
            return self._create(report, entry)
        return self._again(report, entry, issue)

    def _warn_of_public(self, report: dict[str, Any]) -> None:
        if not self.api.is_public:
            return
        if not self.remembered.get("warned_public"):
            self.remembered["warned_public"] = True
            self.notes.append(f"{self.api.full_name} is public: everybody can read the reports")
        if report["body_public"]:
            self.notes.append("names in the log were masked, because the repository is public")

    def _find(self, report: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any] | None:
        """Return the defect's issue: an open one if there is any, else the closed one that decides."""
        known = self.api.issue(int(entry["number"])) if entry.get("number") else None
        if known is not None:
            known = self.finder.follow(known)
            if known["state"] == "open":
                return known
        warning = ensure_labels(self.api, list(self.settings.labels), self.remembered)
        if warning:
            self.notes.append(warning)
        found = self.finder.candidates(report["fingerprint"])
        usable = [issue for issue in found if issue["state"] == "open"]
        if usable:
            return next((issue for issue in usable if not issue.get("locked")), usable[0])
        last = next((issue for issue in found if issue.get("state_reason") != "duplicate"), None)
        if last is None and found:
            last = self.finder.follow(found[0])
        return last or known

    def _again(self, report: dict[str, Any], entry: dict[str, Any], issue: dict[str, Any]) -> dict[str, Any]:
        entry["number"], entry["url"] = issue["number"], issue["html_url"]
        self.remembered["newest"] = max(int(issue["number"]), int(self.remembered.get("newest") or 0))
        number = int(issue["number"])
        if issue["state"] == "open":
            if report["state"].get("reopened") == number:
                self._count_in_comment(report, entry, issue, "Regression: seen again")
                return self._answer(report, "reopened", issue)
            if issue.get("locked"):
                raise RefusedError(f"{issue['html_url']} is locked")
            commented = self._count_in_comment(report, entry, issue)
            return self._answer(report, "commented" if commented else "known", issue)
        reason = issue.get("state_reason")
        if reason in ("not_planned", "duplicate"):
            said = "not planned" if reason == "not_planned" else "a duplicate"
            return self._answer(report, "known", issue, f"#{number} was closed as {said}")
        closed_at = _epoch(issue.get("closed_at"))
        if closed_at is not None and (_epoch(report["occurred_at"]) or self.now()) <= closed_at:
            return self._answer(report, "known", issue, f"it happened before #{number} was closed")
        if issue.get("locked") or (closed_at is not None and self.now() - closed_at > REOPEN_DAYS * 86400):
            return self._create(report, entry, issue)
        if report["version_line"] in self._reported_versions(issue):
            return self._answer(report, "known", issue, f"#{number} is closed, and this version is reported there already")
        return self._reopen(report, entry, issue)

    def _reported_versions(self, issue: dict[str, Any]) -> set[str]:
        texts = [
            str(issue.get("body") or ""),
            *(str(comment.get("body") or "") for comment in self.api.comments(issue["number"])),
        ]
        return {version for text in texts for version in versions_in(text)}

    def _reopen(self, report: dict[str, Any], entry: dict[str, Any], issue: dict[str, Any]) -> dict[str, Any]:
        report["state"]["reopened"] = issue["number"]
        self.save(report)
        self.api.send("PATCH", f"/issues/{issue['number']}", {"state": "open", "state_reason": "reopened"})
        self._count_in_comment(report, entry, issue, "Regression: seen again")
        return self._answer(report, "reopened", issue)

    def _count_in_comment(
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
        self._comment(report, int(issue["number"]), text)
        entry["comment_day"] = today
        entry["comments"] = int(entry.get("comments") or 0) + 1
        self.keep_copy(report, f"Comment on {issue['html_url']}", text)
        return True

    def _comment(self, report: dict[str, Any], number: int, text: str) -> None:
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
            self.api.send("POST", f"/issues/{number}/comments", {"body": self._masked(f"{text}\n{mark}\n")})
        except (RefusedError, LimitedError):
            del pending[str(number)]
            raise
        except TransientError as problem:
            if problem.executed is False:
                del pending[str(number)]
            raise

    def _answer(self, report: dict[str, Any], status: str, issue: dict[str, Any], reason: str = "") -> dict[str, Any]:
        return result(report, status, issue_url=issue["html_url"], issue_number=issue["number"], reason=reason)

    def _masked(self, text: str) -> str:
        return text.replace(self.token, "***") if self.token else text

    # -- creating

    def _lost(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """Look for the issue whose creation was not answered; None when it certainly does not exist."""
        mark = f"Report: `{report['id']}`"
        for name in (report["fingerprint"], report["state"].get("overflow")):
            for issue in self.finder.open(name) if name else []:
                if mark in str(issue.get("body") or ""):
                    entry = self.remembered["fingerprints"][report["fingerprint"]]
                    return self._created(report, entry, issue, name)
        if self.now() < float(report["state"]["posting_at"]) + self.timing.trust_s:
            raise TransientError("the answer to the creation of an issue was lost; it is being looked up")
        report["state"]["posting_at"] = None
        return None

    def _create(self, report: dict[str, Any], entry: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
        if self.ledger.opened_on(self.remembered, day_of(self.now())) >= self.settings.max_new_issues_per_day:
            return self._overflow(report)
        times = "once" if entry["count"] == 1 else f"{entry['count']} times"
        sentence = f"{times} on this rig so far"
        if old is not None:
            sentence += f"; seen before as #{old['number']}, closed on {str(old.get('closed_at') or '')[:10]}"
        text = report["body_public"] if self.api.is_public and report["body_public"] else report["body"]
        issue = self._post(report, report["title"], with_count(text, sentence))
        return self._created(report, entry, issue, report["fingerprint"])

    def _post(self, report: dict[str, Any], title: str, text: str) -> dict[str, Any]:
        title, text = self._masked(title), self._masked(text)
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

    def _created(self, report: dict[str, Any], entry: dict[str, Any], issue: dict[str, Any], name: str) -> dict[str, Any]:
        now, today = self.now(), day_of(self.now())
        state = report["state"]
        state["posting_at"] = None
        if name != report["fingerprint"]:
            self.remembered["overflow"].setdefault(today, {"lines": []}).update(number=issue["number"], url=issue["html_url"])
            return self._answer(report, "created", issue, "more new failures today than are reported singly")
        state.update(number=issue["number"], created_at=now, checks=0, next_try=now + self.timing.settle_s[0])
        entry.update(number=issue["number"], url=issue["html_url"], comment_day=today)
        self.remembered["newest"] = issue["number"]
        self.ledger.count_opened(self.remembered, today)
        self.ledger.save()
        self.save(report)
        return self._answer(report, "created", issue)

    def _overflow(self, report: dict[str, Any]) -> dict[str, Any]:
        """Sum up what exceeds the day's number of new issues in one issue of this rig and day."""
        today = day_of(self.now())
        table = self.remembered["overflow"].setdefault(today, {"lines": []})
        name = "v1:" + hashlib.sha256(f"overflow\x1f{report['rig']}\x1f{today}".encode()).hexdigest()[:12]
        line = f"- `{report['fingerprint']}` {code(report['summary'], 200)}"
        if line not in table["lines"] and len(table["lines"]) < 200:
            table["lines"].append(line)
        limit = self.settings.max_new_issues_per_day
        title = f"More than {limit} different failures on {report['rig']} on {today} [{name}]"
        text = (
            f"Rig {code(report['rig'], 120)} opened {limit} issues on {today}, as many as it may."
            " These failures are new, too:\n\n"
            + "\n".join(table["lines"])
            + f"\n\nVersion: {code(report['version_line'])}\n\nFingerprint: `{name}`\n\nReport: `{report['id']}`\n"
        )
        report["state"]["overflow"] = name
        number = table.get("number")
        issue = self.api.issue(int(number)) if number else None
        if issue is None:
            found = self.finder.open(name)
            issue = found[0] if found else None
        if issue is None:
            issue = self._post(report, title, text)
            return self._created(report, {}, issue, name)
        self.keep_copy(report, title, text)
        self.api.send("PATCH", f"/issues/{issue['number']}", {"body": self._masked(text)})
        table.update(number=issue["number"], url=issue["html_url"])
        return self._answer(report, "known", issue, "more new failures today than are reported singly")

    # -- settling

    def _settle(self, report: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Look for lower numbers; return the canonical issue's answer if the own one had to go."""
        state = report["state"]
        number = int(state["number"])
        entry = self.remembered["fingerprints"].setdefault(
            report["fingerprint"], {"number": number, "count": 1, "first_at": report["occurred_at"], "comment_day": ""}
        )
        listed = self.finder.open(report["fingerprint"])
        lower = self._lower(state, listed, number)
        if lower is not None:
            answer = self._give_way(report, entry, number, lower)
            self.ledger.save()
            return answer, True
        if self.settings.labels and not self.remembered.get("anchor") and not self.remembered.get("labels_dropped"):
            set_anchor(self.api, self.settings.labels[0], number, self.remembered)
        self.ledger.save()
        seen = any(issue["number"] == number for issue in listed)
        state["checks"] = int(state.get("checks") or 0) + 1
        waits = self.timing.settle_s
        if state["checks"] < len(waits):
            state["next_try"] = max(float(state["created_at"]) + waits[state["checks"]], self.now() + 1.0)
            return None, False
        if seen or state["checks"] >= len(waits) + self.timing.resettle_times:
            return None, True
        own = self.api.issue(number)
        if own is None or own["state"] != "open":
            return None, True
        state["next_try"] = self.now() + self.timing.resettle_s
        return None, False

    def _lower(self, state: dict[str, Any], listed: list[dict[str, Any]], number: int) -> dict[str, Any] | None:
        """Return the lowest issue that is older than the own one and still open, asked for itself, since lists lag."""
        numbers = [int(issue["number"]) for issue in listed if int(issue["number"]) < number]
        if state.get("duplicate_of"):
            numbers.insert(0, int(state["duplicate_of"]))
        for candidate in numbers:
            issue = self.api.issue(candidate)
            if issue is not None and issue["state"] == "open" and not issue.get("locked"):
                return issue
        return None

    def _give_way(
        self, report: dict[str, Any], entry: dict[str, Any], number: int, lower: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Close the own issue as a duplicate of a lower one, and add the rig's count there."""
        state = report["state"]
        state["duplicate_of"] = lower["number"]
        own = self.api.issue(number)
        if own is not None and own["state"] == "open":
            self._comment(report, number, f"Duplicate of #{lower['number']}\n")
            self._close(number, lower)
        entry.update(number=lower["number"], url=lower["html_url"])
        if not state.get("told"):
            entry["comment_day"] = ""
            told = self._count_in_comment(report, entry, lower, f"Seen (as #{number}, too)")
            state["told"] = True
            return self._answer(report, "commented" if told else "known", lower, f"#{number} was a duplicate")
        return self._answer(report, "known", lower, f"#{number} was a duplicate")

    def _close(self, number: int, lower: dict[str, Any]) -> None:
        """Close as duplicate; PyGithub's ``Issue.edit`` cannot name the other issue, which goes by its id, not its number."""
        content = {"state": "closed", "state_reason": "duplicate", "duplicate_issue_id": lower.get("id")}
        try:
            self.api.send("PATCH", f"/issues/{number}", content)
        except (RefusedError, TransientError) as problem:
            if isinstance(problem, TransientError):
                raise
            del content["duplicate_issue_id"]
            self.api.send("PATCH", f"/issues/{number}", content)


def _epoch(text: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
