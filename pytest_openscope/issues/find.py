"""Which issue does a defect have already? Without the search API, which lags by minutes.

Lists lag too, by seconds or a minute, and have been empty during outages. So no list is believed that lacks an issue known to
exist: the *anchor*, the repository's first report, whose number stands in the description of the label, and the newest
issue that this rig remembers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .client import Api, GoneError, InvalidError, RefusedError, TransientError
from .text import fingerprints_in

OPEN_PAGES = 10
CLOSED_PAGES = 5
LABEL_TEXT = "Failures reported by rigs (pytest-openscope)"
LABEL_COLOUR = "b60205"
MAX_HOPS = 5
_ANCHOR = re.compile(r"first: #(\d+)")
_DUPLICATE = re.compile(r"(?im)^\s*duplicate of (?:[\w.\-]+/[\w.\-]+)?#(\d+)|^\s*duplicate of https?://\S+/issues/(\d+)")


def ensure_labels(api: Api, labels: list[str], remembered: dict[str, Any]) -> str:
    """Create the missing labels; return a warning, or "". The first label's description is remembered for its anchor."""
    missing = []
    for position, name in enumerate(labels):
        try:
            label = api.get(f"/labels/{_quoted(name)}")
            if position == 0 and isinstance(label, dict):
                match = _ANCHOR.search(str(label.get("description") or ""))
                if match:
                    remembered["anchor"] = int(match[1])
                else:
                    remembered.setdefault("anchor", None)
            continue
        except GoneError:
            missing.append(name)
    refused = []
    for name in missing:
        try:
            api.send("POST", "/labels", {"name": name, "color": LABEL_COLOUR, "description": LABEL_TEXT})
        except InvalidError as problem:
            if "already_exists" not in str(problem):
                refused.append(name)
        except RefusedError:
            refused.append(name)
    if refused:
        remembered["labels_dropped"] = True
        return f"the token may not create the label {', '.join(refused)}"
    return ""


def set_anchor(api: Api, label: str, number: int, remembered: dict[str, Any]) -> None:
    """Write the number of the repository's first report into the label's description, where every rig can read it."""
    remembered["anchor"] = number
    try:
        api.send("PATCH", f"/labels/{_quoted(label)}", {"description": f"{LABEL_TEXT}, first: #{number}"})
    except (RefusedError, TransientError):
        # A token without push right cannot; then only this rig knows the anchor.
        return


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


class Finder:
    """Looks for one fingerprint in one repository."""

    def __init__(self, api: Api, label: str, remembered: dict[str, Any]) -> None:
        self.api = api
        self.label = label
        self.remembered = remembered

    def open(self, fingerprint: str) -> list[dict[str, Any]]:
        """Return the open issues of the fingerprint, lowest number first."""
        return _matching(self._listed("open", OPEN_PAGES)[0], fingerprint)

    def candidates(self, fingerprint: str) -> list[dict[str, Any]]:
        """Return the issues of the fingerprint, open ones first (lowest number first), then closed ones (newest first).

        Raises:
            TransientError: nothing was found, and the list cannot be believed.
        """
        listed, whole = self._listed("open", OPEN_PAGES)
        found = _matching(listed, fingerprint)
        if found:
            return found
        closed, closed_whole = self._listed("closed", CLOSED_PAGES)
        found = _matching(closed, fingerprint)
        if not found:
            self._check([*listed, *closed], whole and closed_whole)
        return found[::-1]

    def _listed(self, state: str, pages: int) -> tuple[list[dict[str, Any]], bool]:
        found: dict[int, dict[str, Any]] = {}
        whole = True
        filters: list[dict[str, str]] = [{"labels": self.label}] if self.label else []
        if not self.label or self.remembered.get("labels_dropped") or not self.api.may_push:
            creator = self.api.login
            filters += [{"creator": creator}] if creator else []
        for filter_by in filters or [{}]:
            issues, all_of_them = self.api.issues(pages, state=state, **filter_by)
            found.update({int(issue["number"]): issue for issue in issues})
            whole = whole and all_of_them
        return list(found.values()), whole

    def _check(self, listed: list[dict[str, Any]], whole: bool) -> None:
        """Raise TransientError if the list lacks an issue that must be in it."""
        if not whole:
            return
        numbers = {int(issue["number"]) for issue in listed}
        known = {self.remembered.get("anchor"), self.remembered.get("newest")} - {None}
        for number in sorted(int(item) for item in known if item is not None):
            if number in numbers:
                continue
            issue = self.api.issue(number)
            if issue is not None and self._belongs(issue):
                raise TransientError(f"the list of issues lacks #{number}, which exists; it cannot be believed now")
            for key in ("anchor", "newest"):
                if self.remembered.get(key) == number:
                    self.remembered[key] = None
        if not numbers and int(self.api.facts.get("open_issues_count") or 0) > 0:
            everything = self.api.get("/issues", state="open", per_page=1)
            if everything == []:
                raise TransientError(
                    "the list of issues is empty although the repository has open ones; it cannot be believed now"
                )

    def _belongs(self, issue: Mapping[str, Any]) -> bool:
        if self.label in label_names(issue):
            return True
        user = issue.get("user")
        return bool(self.remembered.get("labels_dropped")) and isinstance(user, dict) and user.get("login") == self.api.login

    def follow(self, issue: dict[str, Any]) -> dict[str, Any]:
        """Return the issue that a closed duplicate stands for; itself when nobody says which."""
        seen = {issue["number"]}
        for _ in range(MAX_HOPS):
            if issue.get("state") != "closed" or issue.get("state_reason") != "duplicate":
                return issue
            number = self._canonical(issue)
            target = self.api.issue(number) if number and number not in seen else None
            if target is None:
                return issue
            seen.add(target["number"])
            issue = target
        return issue

    def _canonical(self, issue: Mapping[str, Any]) -> int | None:
        texts = [str(issue.get("body") or "")] + [
            str(comment.get("body") or "") for comment in self.api.comments(int(issue["number"]))
        ]
        for text in reversed(texts):
            match = _DUPLICATE.search(text)
            if match:
                return int(match[1] or match[2])
        return None


def label_names(issue: Mapping[str, Any]) -> set[str]:
    """Return the names of an issue's labels."""
    labels = issue.get("labels")
    names = [label.get("name") if isinstance(label, dict) else label for label in labels] if isinstance(labels, list) else []
    return {str(name) for name in names}


def _matching(issues: list[dict[str, Any]], fingerprint: str) -> list[dict[str, Any]]:
    return sorted((issue for issue in issues if fingerprint in fingerprints_in(issue)), key=lambda issue: int(issue["number"]))
