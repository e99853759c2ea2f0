"""What is done with a new report: it is counted, and ends as a comment, a silent count, a reopened issue or a new one."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from typing import Any

from .client import RefusedError, TransientError
from .dealings import Dealings
from .find import ensure_labels
from .ledger import day_of
from .text import code, versions_in, with_count

#: A defect that comes back later than this after its closing gets an issue of its own.
REOPEN_DAYS = 30


class Sender(Dealings):
    """Sends reports that have no issue of their own yet."""

    def send(self, report: dict[str, Any]) -> dict[str, Any]:
        """Do what is due for a report and return the answer; ``report["state"]["number"]`` is set if an issue was opened.

        Raises:
            RefusedError, LimitedError, TransientError: from the server; ``report["state"]`` says how far it came.
        """
        self.begin(report)
        answer = self._new(report)
        if self.notes:
            answer["reason"] = "; ".join([*([answer["reason"]] if answer["reason"] else []), *self.notes])
        self.ledger.save()
        return answer

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
                self.count_in_comment(report, entry, issue, "Regression: seen again")
                return self.answer(report, "reopened", issue)
            if issue.get("locked"):
                raise RefusedError(f"{issue['html_url']} is locked")
            commented = self.count_in_comment(report, entry, issue)
            return self.answer(report, "commented" if commented else "known", issue)
        reason = issue.get("state_reason")
        if reason in ("not_planned", "duplicate"):
            said = "not planned" if reason == "not_planned" else "a duplicate"
            return self.answer(report, "known", issue, f"#{number} was closed as {said}")
        closed_at = _epoch(issue.get("closed_at"))
        if closed_at is not None and (_epoch(report["occurred_at"]) or self.now()) <= closed_at:
            return self.answer(report, "known", issue, f"it happened before #{number} was closed")
        if issue.get("locked") or (closed_at is not None and self.now() - closed_at > REOPEN_DAYS * 86400):
            return self._create(report, entry, issue)
        if report["version_line"] in self._reported_versions(issue):
            return self.answer(report, "known", issue, f"#{number} is closed, and this version is reported there already")
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
        self.count_in_comment(report, entry, issue, "Regression: seen again")
        return self.answer(report, "reopened", issue)

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
        issue = self.post(report, report["title"], with_count(text, sentence))
        return self._created(report, entry, issue, report["fingerprint"])

    def _created(self, report: dict[str, Any], entry: dict[str, Any], issue: dict[str, Any], name: str) -> dict[str, Any]:
        now, today = self.now(), day_of(self.now())
        state = report["state"]
        state["posting_at"] = None
        if name != report["fingerprint"]:
            self.remembered["overflow"].setdefault(today, {"lines": []}).update(number=issue["number"], url=issue["html_url"])
            return self.answer(report, "created", issue, "more new failures today than are reported singly")
        state.update(number=issue["number"], created_at=now, checks=0, next_try=now + self.timing.settle_s[0])
        entry.update(number=issue["number"], url=issue["html_url"], comment_day=today)
        self.remembered["newest"] = issue["number"]
        self.ledger.count_opened(self.remembered, today)
        self.ledger.save()
        self.save(report)
        return self.answer(report, "created", issue)

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
            issue = self.post(report, title, text)
            return self._created(report, {}, issue, name)
        self.keep_copy(report, title, text)
        self.api.send("PATCH", f"/issues/{issue['number']}", {"body": self.masked(text)})
        table.update(number=issue["number"], url=issue["html_url"])
        return self.answer(report, "known", issue, "more new failures today than are reported singly")


def _epoch(text: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
