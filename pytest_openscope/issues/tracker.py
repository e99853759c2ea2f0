"""One issue per defect on the server: looked for, opened, counted in, reopened, and settled among rigs.

The search API lags by minutes, so issues are listed. Lists lag too, by seconds or a minute, and have been empty during outages.
So no list is believed that lacks an issue known to exist: the *anchor*, the repository's first report, whose number stands in
the description of the label, and the newest issue that this rig remembers.

Races have no coordinator: after a creation a rig looks again until the list can be trusted. Who sees an open issue of the same
defect with a lower number closes the own one, nobody else's. The lowest number sees no lower one, so it stays.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..config import GithubIssueSettings
from ..system import write_json
from .client import Api, GoneError, RefusedError, ServerError, TransientError
from .outbox import Ledger, day_of, keep_copy, result
from .text import VERSION, code, fingerprints_in, occurrence_comment, times, versions_in, with_count

OPEN_PAGES = 10
CLOSED_PAGES = 5
LABEL_TEXT = "Failures reported by rigs (pytest-openscope)"
LABEL_COLOUR = "b60205"
#: Duplicates of duplicates that are followed.
MAX_HOPS = 5
#: Comments of all rigs together on one issue.
MAX_COMMENTS = 400
#: A defect that comes back later than this after its closing gets an issue of its own.
REOPEN_DAYS = 30
_ANCHOR = re.compile(r"first: #(\d+)")
_DUPLICATE = re.compile(r"(?im)^\s*duplicate of (?:[\w.\-]+/[\w.\-]+)?#(\d+)|^\s*duplicate of https?://\S+/issues/(\d+)")


class Tracker:
    """What is done on the server about one report, whose file is ``path``."""

    def __init__(
        self, api: Api, ledger: Ledger, path: Path, report: dict[str, Any], now: Callable[[], float] = time.time
    ) -> None:
        self.api = api
        self.ledger = ledger
        self.path = path
        self.report = report
        self.state: dict[str, Any] = report["state"]
        self.now = now
        self.settings = GithubIssueSettings.of(report["settings"])
        self.label = self.settings.labels[0] if self.settings.labels else ""
        #: What the ledger has on the repository and on the defect.
        self.remembered = ledger.repo(self.settings.api_base_url, self.settings.repo)
        self.entry: dict[str, Any] = {}
        self.notes: list[str] = []

    def advance(self) -> tuple[dict[str, Any] | None, bool]:
        """Do what is due; return the answer for the session, if there is a new one, and whether the report is done with.

        Raises:
            RefusedError, TransientError: from the server; the report says how far it came.
        """
        self._count()
        if self.state.get("number"):
            answer, done = self._settle(self.state["number"])
        else:
            answer = self._send()
            answer["reason"] = "; ".join(filter(None, [answer["reason"], *self.notes]))
            done = not self.state.get("number")
        return answer, done

    def _save(self) -> None:
        """Put ledger and report on disk, as before every write whose answer may be lost."""
        self.ledger.save()
        write_json(self.path, self.report)

    def _count(self) -> None:
        """Count the occurrence, once; an entry that is gone from the ledger begins anew."""
        report = self.report
        self.entry = self.ledger.occurrence(self.remembered, report["fingerprint"], report["occurred_at"], report["id"])
        self.entry["number"] = self.entry["number"] or self.state.get("number")
        if "occurrence" not in self.state:
            self.state["occurrence"] = self.entry["count"]
            self._save()

    # -- a report without an issue of its own

    def _send(self) -> dict[str, Any]:
        if self.api.is_public:
            if not self.remembered.get("warned_public"):
                self.remembered["warned_public"] = True
                self.notes.append(f"{self.api.full_name} is public: everybody can read the reports")
            if self.report["body_public"]:
                self.notes.append("names in the log were masked, because the repository is public")
        if self.state.get("posting_at"):
            lost = self._lost()
            if lost is not None:
                return lost
        issue = self._find()
        return self._create() if issue is None else self._again(issue)

    def _lost(self) -> dict[str, Any] | None:
        """Look for the issue whose creation was not answered; None when it certainly does not exist."""
        for name in filter(None, (self.report["fingerprint"], self.state.get("overflow"))):
            for issue in self._open_issues(name):
                if self._mark in str(issue.get("body") or ""):
                    return self._created(issue, name)
        if not self._trusts(self.state, "posting_at"):
            raise TransientError("the answer to the creation of an issue was lost; it is being looked up")
        del self.state["posting_at"]
        return None

    def _trusts(self, pending: dict[str, Any], key: str) -> bool:
        """Tell whether a write that was not answered is old enough to be seen in a list, if it took place.

        One of the future was noted before the clock was set back: its time begins now.
        """
        if pending[key] > self.now():
            pending[key] = self.now()
            self._save()
        return bool(self.now() >= pending[key] + self.api.timing.trust_s)

    def _find(self) -> dict[str, Any] | None:
        """Return the defect's issue: an open one if there is any, else the closed one that decides."""
        known = self.api.issue(self.entry["number"]) if self.entry["number"] else None
        if known is not None:
            known = self._follow(known)
            if known["state"] == "open":
                return known
        self._ensure_labels()
        found = self._candidates()
        usable = [issue for issue in found if issue["state"] == "open"]
        if usable:
            return next((issue for issue in usable if not issue.get("locked")), usable[0])
        last = next((issue for issue in found if issue.get("state_reason") != "duplicate"), None)
        if last is None and found:
            last = self._follow(found[0])
        return last or known

    def _again(self, issue: dict[str, Any]) -> dict[str, Any]:
        number = issue["number"]
        self.entry.update(number=number, url=issue["html_url"])
        self.remembered["newest"] = max(number, self.remembered.get("newest") or 0)
        if issue["state"] == "open":
            if self.state.get("reopened") == number:
                return self._regression(issue)
            if issue.get("locked"):
                raise RefusedError(f"{issue['html_url']} is locked")
            return self._answer("commented" if self._count_in_comment(issue) else "known", issue)
        reason = issue.get("state_reason")
        if reason in ("not_planned", "duplicate"):
            said = "not planned" if reason == "not_planned" else "a duplicate"
            return self._answer("known", issue, f"#{number} was closed as {said}")
        closed_at = _epoch(issue["closed_at"])
        if _epoch(self.report["occurred_at"]) <= closed_at:
            return self._answer("known", issue, f"it happened before #{number} was closed")
        if issue.get("locked") or self.now() - closed_at > REOPEN_DAYS * 86400:
            return self._create(issue)
        texts = [str(issue.get("body") or ""), *self.api.comments(number)]
        if any(self.report["version_line"] in versions_in(text) for text in texts):
            return self._answer("known", issue, f"#{number} is closed, and this version is reported there already")
        self.state["reopened"] = number
        self._save()
        self.api.send("PATCH", f"/issues/{number}", {"state": "open", "state_reason": "reopened"})
        return self._regression(issue)

    def _regression(self, issue: dict[str, Any]) -> dict[str, Any]:
        self._count_in_comment(issue, "Regression: seen again")
        return self._answer("reopened", issue)

    def _create(self, old: dict[str, Any] | None = None) -> dict[str, Any]:
        report = self.report
        if self.remembered["opened"].get(day_of(self.now()), 0) >= self.settings.max_new_issues_per_day:
            return self._overflow()
        sentence = f"{times(self.entry['count'])} on this rig so far"
        if old is not None:
            sentence += f"; seen before as #{old['number']}, closed on {old['closed_at'][:10]}"
        text = report["body_public"] if self.api.is_public and report["body_public"] else report["body"]
        return self._created(self._post(report["title"], with_count(text, sentence)), report["fingerprint"])

    def _created(self, issue: dict[str, Any], name: str) -> dict[str, Any]:
        now, today = self.now(), day_of(self.now())
        self.state.pop("posting_at", None)
        if name != self.report["fingerprint"]:
            self.remembered["overflow"].setdefault(today, {"lines": []}).update(number=issue["number"], url=issue["html_url"])
            return self._answer("created", issue, "more new failures today than are reported singly")
        self.state.update(number=issue["number"], created_at=now, checks=0, next_try=now + self.api.timing.settle_s[0])
        self.entry.update(number=issue["number"], url=issue["html_url"], comment_day=today)
        self.remembered["newest"] = issue["number"]
        self.ledger.count_opened(self.remembered, today)
        self._save()
        return self._answer("created", issue)

    def _overflow(self) -> dict[str, Any]:
        """Sum up what exceeds the day's number of new issues in one issue of this rig and day."""
        report, today, limit = self.report, day_of(self.now()), self.settings.max_new_issues_per_day
        table = self.remembered["overflow"].setdefault(today, {"lines": []})
        name = f"{VERSION}:" + hashlib.sha256(f"overflow\x1f{report['rig']}\x1f{today}".encode()).hexdigest()[:12]
        line = f"- `{report['fingerprint']}` {code(report['summary'], 200)}"
        if line not in table["lines"] and len(table["lines"]) < 200:
            table["lines"].append(line)
        title = f"More than {limit} different failures on {report['rig']} on {today} [{name}]"
        text = (
            f"Rig {code(report['rig'], 120)} opened {limit} issues on {today}, as many as it may."
            " These failures are new, too:\n\n"
            + "\n".join(table["lines"])
            + f"\n\nVersion: {code(report['version_line'])}\n\nFingerprint: `{name}`\n\n{self._mark}\n"
        )
        self.state["overflow"] = name
        issue = self.api.issue(table["number"]) if table.get("number") else None
        if issue is None:
            issue = next(iter(self._open_issues(name)), None)
        if issue is None:
            return self._created(self._post(title, text), name)
        self._keep(title, text)
        self.api.send("PATCH", f"/issues/{issue['number']}", {"body": text})
        table.update(number=issue["number"], url=issue["html_url"])
        return self._answer("known", issue, "more new failures today than are reported singly")

    # -- a report whose issue this rig has opened

    def _settle(self, number: int) -> tuple[dict[str, Any] | None, bool]:
        """Look for lower numbers; return the canonical issue's answer if the own one had to go, and whether that is all."""
        state, timing = self.state, self.api.timing
        listed = self._open_issues(self.report["fingerprint"])
        lower = self._lower(listed, number)
        if lower is not None:
            return self._give_way(number, lower), True
        if self.label and not self.remembered.get("anchor") and not self.remembered.get("labels_dropped"):
            self._set_anchor(number)
        state["checks"] += 1
        seen = any(issue["number"] == number for issue in listed)
        if state["checks"] >= len(timing.settle_s) or (seen and self.now() >= state["created_at"] + timing.trust_s):
            return None, True
        state["next_try"] = max(state["created_at"] + timing.settle_s[state["checks"]], self.now() + 1.0)
        return None, False

    def _lower(self, listed: list[dict[str, Any]], number: int) -> dict[str, Any] | None:
        """Return the lowest issue that is older than the own one and still open, asked for itself, since lists lag."""
        numbers = [issue["number"] for issue in listed if issue["number"] < number]
        if self.state.get("duplicate_of"):
            numbers.insert(0, self.state["duplicate_of"])
        for candidate in numbers:
            issue = self.api.issue(candidate)
            if issue is not None and issue["state"] == "open" and not issue.get("locked"):
                return issue
        return None

    def _give_way(self, number: int, lower: dict[str, Any]) -> dict[str, Any]:
        """Close the own issue as a duplicate of a lower one, and add the rig's count there."""
        self.state["duplicate_of"] = lower["number"]
        own = self.api.issue(number)
        if own is not None and own["state"] == "open":
            self._comment(number, f"Duplicate of #{lower['number']}\n")
            # The other issue goes by its id, not its number.
            content = {"state": "closed", "state_reason": "duplicate", "duplicate_issue_id": lower["id"]}
            try:
                self.api.send("PATCH", f"/issues/{number}", content)
            except RefusedError:
                del content["duplicate_issue_id"]
                self.api.send("PATCH", f"/issues/{number}", content)
        self.entry.update(number=lower["number"], url=lower["html_url"])
        told = False
        if not self.state.get("told"):
            self.entry["comment_day"] = ""
            told = self._count_in_comment(lower, f"Seen (as #{number}, too)")
            self.state["told"] = True
        return self._answer("commented" if told else "known", lower, f"#{number} was a duplicate")

    # -- writes

    @property
    def _mark(self) -> str:
        """The line by which this report's own issue and comments are known again."""
        return f"Report: `{self.report['id']}`"

    def _answer(self, status: str, issue: dict[str, Any], reason: str = "") -> dict[str, Any]:
        return result(self.report, status, issue_url=issue["html_url"], issue_number=issue["number"], reason=reason)

    def _keep(self, title: str, text: str) -> None:
        keep_copy(Path(self.report["sent_copy"]), title, text)

    def _post_once(self, path: str, content: Mapping[str, Any], pending: dict[str, Any], key: str) -> dict[str, Any]:
        """Make a write that must not be made twice: the report on disk has its time in ``pending[key]`` before it begins.

        The time goes only when the write certainly did not take place; whoever finds it later must look the write up.
        """
        pending[key] = self.now()
        self._save()
        try:
            return self.api.send("POST", path, content)
        except ServerError as problem:
            if not problem.uncertain:
                del pending[key]
            raise

    def _post(self, title: str, text: str) -> dict[str, Any]:
        """Open an issue.

        Raises:
            TransientError: the answer was lost; whether the issue exists must be looked up.
        """
        wanted = list(self.settings.labels)
        self._keep(title, text)
        issue = self._post_once("/issues", {"title": title, "body": text, "labels": wanted}, self.state, "posting_at")
        if "number" not in issue:
            raise TransientError("POST issue: the answer is not an issue")
        missing = set(wanted) - _label_names(issue)
        if missing:
            self.remembered["labels_dropped"] = True
            self.notes.append(f"the server dropped the label {', '.join(sorted(missing))}: the token has no right to set it")
        return issue

    def _comment(self, number: int, text: str) -> None:
        """Post a comment; one whose answer was lost before is looked up first."""
        pending = self.state.setdefault("commenting", {})
        since = pending.get(str(number))
        if since is not None:
            if any(self._mark in comment for comment in self.api.comments(number)):
                return
            if not self._trusts(pending, str(number)):
                raise TransientError(f"the answer to a comment on #{number} was lost; it is being looked up")
        content = {"body": f"{text}\n{self._mark}\n"}
        self._post_once(f"/issues/{number}/comments", content, pending, str(number))

    def _count_in_comment(self, issue: dict[str, Any], lead: str = "Seen again") -> bool:
        """Add the rig's count, unless this rig said something on this defect today or the issue is full of comments."""
        entry, today = self.entry, day_of(self.now())
        own = entry.get("comments", 0)
        if entry["comment_day"] == today or own >= self.settings.max_comments_per_issue or issue["comments"] >= MAX_COMMENTS:
            return False
        text = occurrence_comment(lead, self.report["rig"], entry, self.report["version_line"])
        self._comment(issue["number"], text)
        entry.update(comment_day=today, comments=own + 1)
        self._keep(f"Comment on {issue['html_url']}", text)
        return True

    # -- labels, and the first label's description, which has the anchor

    def _ensure_labels(self) -> None:
        """Create the missing labels, and remember the anchor."""
        refused = []
        for name in self.settings.labels:
            try:
                match = _ANCHOR.search(self.api.label(name).get("description") or "")
                if name == self.label and match:
                    self.remembered["anchor"] = int(match[1])
                continue
            except GoneError:
                content = {"name": name, "color": LABEL_COLOUR, "description": LABEL_TEXT}
            try:
                self.api.send("POST", "/labels", content)
            except RefusedError as problem:
                # Another rig may have made it meanwhile.
                if "already_exists" not in str(problem):
                    refused.append(name)
        if refused:
            self.remembered["labels_dropped"] = True
            self.notes.append(f"the token may not create the label {', '.join(refused)}")

    def _set_anchor(self, number: int) -> None:
        """Write the number of the repository's first report into the label's description, where every rig can read it."""
        try:
            self.api.send("PATCH", f"/labels/{quote(self.label, safe='')}", {"description": f"{LABEL_TEXT}, first: #{number}"})
        except RefusedError:
            pass  # a token without push right cannot; then only this rig knows the anchor
        self.remembered["anchor"] = number

    # -- lists of issues

    def _open_issues(self, fingerprint: str) -> list[dict[str, Any]]:
        """Return the open issues of a fingerprint, lowest number first."""
        return _matching(self._listed("open", OPEN_PAGES)[0], fingerprint)

    def _candidates(self) -> list[dict[str, Any]]:
        """Return the defect's issues: the open ones (lowest number first), or else the closed ones (newest first).

        Raises:
            TransientError: nothing was found, and the list cannot be believed.
        """
        listed, whole = self._listed("open", OPEN_PAGES)
        found = _matching(listed, self.report["fingerprint"])
        if found:
            return found
        closed, closed_whole = self._listed("closed", CLOSED_PAGES)
        found = _matching(closed, self.report["fingerprint"])
        if not found and whole and closed_whole:
            self._check_lists({issue["number"] for issue in (*listed, *closed)})
        return found[::-1]

    def _listed(self, state: str, pages: int) -> tuple[Iterable[dict[str, Any]], bool]:
        """Return the reports' issues, and whether that is all of them: by the label, and where it may be missing by creator."""
        found: dict[int, dict[str, Any]] = {}
        whole = True
        filters: list[dict[str, str]] = [{"labels": self.label}] if self.label else []
        if not self.label or self.remembered.get("labels_dropped") or not self.api.may_push:
            filters += [{"creator": self.api.login}] if self.api.login else []
        for filter_by in filters or [{}]:
            issues, all_of_them = self.api.issues(pages, state=state, **filter_by)
            found.update({issue["number"]: issue for issue in issues})
            whole = whole and all_of_them
        return found.values(), whole

    def _check_lists(self, numbers: set[int]) -> None:
        """Raise TransientError if whole lists lack an issue that must be in them."""
        for key in ("anchor", "newest"):
            number = self.remembered.get(key)
            if not number or number in numbers:
                continue
            issue = self.api.issue(number)
            if issue is not None and self._belongs(issue):
                raise TransientError(f"the list of issues lacks #{number}, which exists; it cannot be believed now")
            self.remembered[key] = None
        if not numbers and self.api.facts["open_issues_count"] and self.api.lists_nothing():
            raise TransientError("the list of issues is empty although the repository has open ones; it cannot be believed now")

    def _belongs(self, issue: Mapping[str, Any]) -> bool:
        if self.label in _label_names(issue):
            return True
        return bool(self.remembered.get("labels_dropped")) and (issue["user"] or {}).get("login") == self.api.login

    def _follow(self, issue: dict[str, Any]) -> dict[str, Any]:
        """Return the issue that a closed duplicate stands for; itself when nobody says which."""
        seen = {issue["number"]}
        for _ in range(MAX_HOPS):
            if issue.get("state") != "closed" or issue.get("state_reason") != "duplicate":
                return issue
            texts = [str(issue.get("body") or ""), *self.api.comments(issue["number"])]
            match = next(filter(None, map(_DUPLICATE.search, reversed(texts))), None)
            number = int(match[1] or match[2]) if match else None
            target = self.api.issue(number) if number and number not in seen else None
            if target is None:
                return issue
            seen.add(target["number"])
            issue = target
        return issue


def _label_names(issue: Mapping[str, Any]) -> set[str]:
    return {label["name"] for label in issue["labels"]}


def _matching(issues: Iterable[dict[str, Any]], fingerprint: str) -> list[dict[str, Any]]:
    return sorted((issue for issue in issues if fingerprint in fingerprints_in(issue)), key=lambda issue: int(issue["number"]))


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
